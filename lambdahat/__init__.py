"""lambdahat: local learning coefficients, with honest error bars, for every checkpoint of a training run.

This is what other tools import: a client, a recorder for training loops, a schedule. It talks to a server over HTTP and
imports neither torch nor the server.
"""

from lambdahat.client import Client
from lambdahat.errors import ApiError, LambdahatError, RecorderError, ServerUnreachableError
from lambdahat.recorder import Recorder
from lambdahat.schedule import log_linear_steps
from lambdahat.webhooks import WebhookError, verify_webhook

__all__ = [
    "ApiError",
    "Client",
    "LambdahatError",
    "Recorder",
    "RecorderError",
    "ServerUnreachableError",
    "WebhookError",
    "log_linear_steps",
    "verify_webhook",
]
