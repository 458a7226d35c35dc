"""For who receives webhooks: whether they come from the server, as https://www.standardwebhooks.com specifies."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

from lambdahat.errors import LambdahatError

TOLERANCE_SECONDS = 300.0


class WebhookError(LambdahatError):
    """What came is not, or not provably, from the server: answer with 400 and do nothing."""


def verify_webhook(
    body: bytes, headers: Mapping[str, str], secret: str, tolerance: float = TOLERANCE_SECONDS
) -> dict[str, Any]:
    """The payload {type, timestamp, data} of a webhook, once its signature has been checked.

    body: as it was received, to the byte; secret: `whsec_…`; tolerance: seconds that it may be old, or early, by this
    machine's clock. The same may come more than once: remember `webhook-id`. Raises: WebhookError.
    """
    found = {name.lower(): value for name, value in headers.items()}
    try:
        message_id, timestamp, signatures = (found[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
        sent_at = int(timestamp)
    except (KeyError, ValueError):
        hint = "webhook-id, webhook-timestamp (a number) and webhook-signature are needed"
        raise WebhookError("a header is missing or not well-formed", hint) from None
    signed = f"{message_id}.{timestamp}.".encode(errors="replace") + body
    expected = b"v1," + base64.b64encode(hmac.digest(_key(secret), signed, hashlib.sha256))
    # Every one is compared, and each in the same time wherever it differs.
    matches = [hmac.compare_digest(expected, signature.encode(errors="replace")) for signature in signatures.split(" ")]
    if not any(matches):
        hint = "is it this webhook's secret, and the body as it came, not parsed and written again?"
        raise WebhookError("the signature is not right", hint)
    if abs(time.time() - sent_at) > tolerance:
        raise WebhookError("it was signed too long ago, or will be", "is this machine's clock right?")
    return json.loads(body)


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise WebhookError("the secret is none", "it reads whsec_… and is shown when a webhook is made")
    return key
