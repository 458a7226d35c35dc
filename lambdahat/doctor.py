"""`lambdahat doctor`: looks at an installation, here or behind a URL, and says what to do."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx

from lambdahat.client import Client
from lambdahat.errors import ApiError, LambdahatError

ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. hint: what to do, if it is not ok."""

    name: str
    state: Literal["ok", "warning", "broken"]
    detail: str
    hint: str = ""


def examine_machine(root: Path) -> Iterator[Check]:
    """The installation on this machine, with this data root, and its API if that runs."""
    if sys.platform == "win32":
        yield Check(
            "stack", "broken", "the servers run on Linux and macOS", "lambdahat doctor --url looks at one elsewhere"
        )
        return
    from lambdahat.stack.doctor import check_machine

    yield from check_machine(root)
    address, key = root / "address", root / "key"
    if address.exists():
        kept = key.read_text().strip() if key.exists() else None
        yield from examine_service(address.read_text().strip(), kept)


def examine_service(url: str, key: str | None) -> Iterator[Check]:
    """What an API says of itself, and of a key."""
    try:
        ready = httpx.get(f"{url.rstrip('/')}/readyz", timeout=ANSWER_SECONDS)
        parts: dict[str, str] = ready.json()["parts"]
    except httpx.TransportError as error:
        hint = "is it running? --url or LAMBDAHAT_URL says where it is"
        yield Check("api", "broken", f"no answer from {url}: {error or type(error).__name__}", hint)
        return
    except (ValueError, KeyError, TypeError):
        hint = "is the address right, with its path behind a proxy?"
        yield Check("api", "broken", f"{url} answers, but it is no lambdahat", hint)
        return
    wrong = [f"{name}: {word}" for name, word in parts.items() if word != "ok"]
    if wrong:
        yield Check("api", "broken", f"{url} is not ready: {'; '.join(wrong)}", "mend that; then the API mends itself")
    else:
        yield Check("api", "ok", f"{url} is ready")
    yield _key(url, key)


def _key(url: str, key: str | None) -> Check:
    if key is None:
        return Check("key", "warning", "none was given", "pass --key or set LAMBDAHAT_KEY to have it tried")
    try:
        with Client(url, key, timeout=ANSWER_SECONDS, retries=0) as client:
            identity = client.whoami()
    except ApiError as error:
        if error.status != 401:
            return Check("key", "warning", f"can't be tried: {error.detail}", error.hint)
        hint = "make another: python -m store.admin create-key, or POST /v1/api-keys with one that is valid"
        return Check("key", "broken", error.detail, hint)
    except LambdahatError as error:
        return Check("key", "warning", f"can't be tried: {error.detail}", error.hint)
    return Check("key", "ok", f"tenant {identity.tenant.name}, {', '.join(identity.key.scopes)}")
