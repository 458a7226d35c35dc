"""`python -m worker.webhooks`: sends webhooks. One is enough; more do no harm.

A process of its own, so that slow receivers keep nobody but each other waiting: not the sweeper, not the workers.
"""

import argparse
import base64
import email.utils
import hashlib
import hmac
import signal
import ssl
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import httpcore
import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from store import webhooks
from store.database import connect
from store.logs import Outage, write_json
from store.settings import StoreSettings
from store.webhooks import Outcome, Parcel
from worker.outbound import PostError, post

CONCURRENCY = 16
"""Receivers that one sender talks to at once."""
TIDY_SECONDS = 3600.0
ASKING = (429, 502, 503, 504)
"""Answers whose Retry-After is followed."""

log = structlog.get_logger()


class Sender:
    """Takes what is due, sends it, each in a thread of its own, and records what came of it, until told to stop."""

    def __init__(self, engine: Engine, settings: StoreSettings) -> None:
        self._engine, self._settings = engine, settings
        self._threads = ThreadPoolExecutor(CONCURRENCY, "webhook")
        self._free = CONCURRENCY
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._stopping = False
        self._tls = httpcore.default_ssl_context()
        self._database = Outage("database")

    def run(self) -> None:
        """Send until told to stop; then end what is under way."""
        with self._threads:
            while not self._stopping:
                try:
                    self._round()
                    self._database.back()
                except OperationalError as error:
                    self._database.away(error)
                self._changed.wait(self._settings.sweep_seconds)
                self._changed.clear()

    def stop(self) -> None:
        """Take nothing more. May be called by a signal's handler."""
        self._stopping = True
        self._changed.set()

    def _round(self) -> None:
        with self._lock:
            number = self._free
        if number == 0:
            return
        with Session(self._engine) as session, session.begin():
            parcels = webhooks.take(session, number)
        with self._lock:
            self._free -= len(parcels)
        for parcel in parcels:
            self._threads.submit(self._deliver, parcel)

    def _deliver(self, parcel: Parcel) -> None:
        try:
            outcome = self._outcome(parcel)
            about = {"delivery": parcel.delivery_id, "webhook": parcel.webhook_id, "attempt": parcel.attempt}
            log.info("webhook_sent", **about, status=outcome.status, reason=outcome.error)
            with Session(self._engine) as session, session.begin():
                webhooks.record(session, parcel, outcome)
        except OperationalError as error:
            # The lease runs out, and it is sent again.
            self._database.away(error)
        except Exception:
            log.exception("webhook_not_recorded", delivery=parcel.delivery_id)
        finally:
            with self._lock:
                self._free += 1
            self._changed.set()

    def _outcome(self, parcel: Parcel) -> Outcome:
        try:
            return send(parcel, self._settings, self._tls)
        except Exception as error:  # a fault of ours is an attempt, too: else there would be no end of them
            log.exception("webhook_not_sent", delivery=parcel.delivery_id)
            return Outcome(None, f"a fault of the server: {type(error).__name__}")


def send(parcel: Parcel, settings: StoreSettings, tls: ssl.SSLContext) -> Outcome:
    """One attempt."""
    body = parcel.body.encode()
    headers = {
        "User-Agent": "lambdahat",
        "webhook-id": parcel.delivery_id,
        "webhook-timestamp": str(int(parcel.at.timestamp())),
        "webhook-signature": sign(parcel.delivery_id, int(parcel.at.timestamp()), body, parcel.secrets),
    }
    try:
        answer = post(
            parcel.url, headers, body, networks=settings.webhook_networks, allow_http=settings.webhook_http, tls=tls
        )
    except PostError as error:
        return Outcome(None, str(error))
    if 200 <= answer.status < 300:
        return Outcome(answer.status)
    asked = answer.headers.get("retry-after") if answer.status in ASKING else None
    return Outcome(
        answer.status, answer.text or f"status {answer.status}", _seconds(asked, parcel.at) if asked else None
    )


def sign(message_id: str, timestamp: int, body: bytes, secrets: Iterable[str]) -> str:
    """The signatures of a message, one for each secret, as the specification lists them."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    keys = (base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets)
    return " ".join("v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys)


def _seconds(asked: str, now: datetime) -> float | None:
    """Retry-After as seconds: it is a number of them, or a date."""
    if asked.isdecimal():
        return float(asked[:10])
    try:
        return (email.utils.parsedate_to_datetime(asked) - now).total_seconds()
    except (ValueError, TypeError, OverflowError):  # no date, or one without a time zone, or beyond all calendars
        return None


def main() -> None:
    """Send until told to stop."""
    argparse.ArgumentParser(prog="python -m worker.webhooks", description=__doc__).parse_args()
    write_json()
    settings = StoreSettings.model_validate({})
    # And as many connections more, should all of them record at the same time.
    engine = connect(settings.database_url, pool_size=CONCURRENCY // 2 + 1, seconds=settings.database_seconds)
    sender = Sender(engine, settings)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: sender.stop())
    threading.Thread(target=_tidy, args=(engine,), daemon=True).start()
    sender.run()


def _tidy(engine: Engine) -> None:
    while True:
        try:
            with Session(engine) as session, session.begin():
                webhooks.forget_old(session)
        except OperationalError as error:
            log.warning("not_tidied", reason=str(error))
        time.sleep(TIDY_SECONDS)


if __name__ == "__main__":
    main()
