"""/v1/webhooks: who is told of what, and what came of it."""

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from api.dependencies import Reader, Shared, State, Writer
from api.fields import Body, Text, Timestamp
from api.paging import ID, After, Limit, Page, page, position
from api.problems import RESPONSES
from api.reads import ReadRoute
from store import webhooks
from store.addresses import DEFAULT_PORTS, check_url, resolve
from store.owned import find, newest
from store.tables import Delivery, Webhook
from store.webhooks import Kind, Reason

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], responses=RESPONSES, route_class=ReadRoute)

Url = Annotated[
    str, Field(max_length=2000, description="https://…, on the public internet unless the operator allows more.")
]
Events = Annotated[
    list[Kind | Literal["*"]], Field(min_length=1, max_length=20, description='What to tell of; "*": of everything.')
]


class NewWebhook(Body):
    """An address to be told of events."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"url": "https://lab.example/hooks", "events": ["job.succeeded", "job.failed"]}]
        }
    )
    url: Url
    events: Events
    description: Text = ""


class WebhookChange(Body):
    """What is to be another. enabled: false ends what waits to be sent; true sends what happens from now on."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"enabled": True}]})
    url: Url | None = None
    events: Events | None = None
    description: Text | None = None
    enabled: bool | None = None


class WebhookOut(BaseModel):
    """A webhook, without its secret."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    url: str
    events: list[str]
    description: str
    disabled_at: Timestamp | None = Field(description="Since when nothing is sent; null: it is enabled.")
    disabled_reason: Reason | None = Field(
        description="asked: by PATCH; gone: the receiver answered 410; failing: for days nothing was received."
    )
    last_delivered_at: Timestamp | None
    paused_until: Timestamp | None = Field(description="The receiver asked for it, by Retry-After.")
    previous_secret_until: Timestamp | None = Field(description="How long the secret before this one signs as well.")
    created_at: Timestamp


class MadeWebhook(WebhookOut):
    """A webhook with its secret."""

    secret: str = Field(description="Verifies what is sent. Shown this once.")


class DeliveryOut(BaseModel):
    """Something that a webhook is told. Its id is the header `webhook-id`, of every attempt."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    event: str
    state: Literal["pending", "delivered", "failed"]
    attempts: int
    last_status: int | None
    last_error: str | None
    last_attempt_at: Timestamp | None
    next_attempt_at: Timestamp | None
    created_at: Timestamp
    ended_at: Timestamp | None


class TransitionTold(BaseModel):
    """A transition that has become certain, or that is no more, as it was told when it had."""

    type: Literal["A", "B"]
    from_step: int
    from_step_low: int | None
    from_step_high: int | None
    to_step: int
    to_step_low: int | None
    to_step_high: int
    probability_a: float | None
    probability_b: float | None
    probability_neither: float | None
    delta_llc: float
    delta_llc_std_error: float | None
    delta_loss: float | None
    delta_loss_std_error: float | None


class JobTold(BaseModel):
    """A job, as it was when it happened."""

    job: str
    series: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    links: dict[Literal["job", "results", "curve"], str]
    transition: TransitionTold | None = Field(None, description="That transition.certain or .withdrawn is about.")


class WebhookTold(BaseModel):
    """A webhook: of a test itself, otherwise the one that was disabled."""

    webhook: str
    reason: Reason | None = None
    links: dict[Literal["webhook"], str]


class Told(BaseModel):
    """What a webhook is sent. Where to look, and no results."""

    type: Kind | Literal["webhook.test"]
    timestamp: Timestamp = Field(description="When it happened.")
    data: JobTold | WebhookTold


def told(
    body: Told,
    webhook_id: Annotated[str, Header(description="The same in every attempt.")],
    webhook_timestamp: Annotated[int, Header(description="When this attempt was made, in seconds since 1970.")],
    webhook_signature: Annotated[str, Header(description="v1,<base64>, perhaps several, with spaces between.")],
) -> None:
    """A POST to the URL of a webhook, as https://www.standardwebhooks.com specifies. Answer with 2xx within 15 s."""


_LIST = TypeAdapter(list[WebhookOut])
_DELIVERIES = TypeAdapter(list[DeliveryOut])


def _show(rows: Sequence[Webhook]) -> list[WebhookOut]:
    return _LIST.validate_python(rows, from_attributes=True)


def _show_deliveries(rows: Sequence[Delivery]) -> list[DeliveryOut]:
    return _DELIVERIES.validate_python(rows, from_attributes=True)


def _check(url: str, shared: State) -> None:
    """Refuse what could never be sent to. It is checked again whenever something is sent."""
    parts = check_url(url, shared.settings.webhook_http)
    resolve(parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme], shared.settings.webhook_networks)


@router.post("", summary="Be told of events", status_code=201)
def post_webhook(body: NewWebhook, caller: Writer, shared: Shared) -> MadeWebhook:
    """No Idempotency-Key here: the answer, which has the secret in it, is kept nowhere."""
    _check(body.url, shared)
    with shared.session() as session:
        made = webhooks.create_webhook(session, caller.tenant_id, body.url, body.events, body.description)
        return MadeWebhook.model_validate(made)


@router.get("", summary="List webhooks, newest first")
def list_webhooks(key: Reader, shared: Shared, limit: Limit = 50, after: After = None) -> Page[WebhookOut]:
    with shared.reading() as session:
        rows = newest(session, Webhook, key.tenant_id, position(after, ID), limit + 1)
        return page(rows, limit, lambda row: row.id, _show)


@router.get("/{webhook_id}", summary="Get a webhook")
def get_webhook(webhook_id: str, key: Reader, shared: Shared) -> WebhookOut:
    with shared.reading() as session:
        return WebhookOut.model_validate(find(session, Webhook, key.tenant_id, webhook_id))


@router.patch("/{webhook_id}", summary="Change, disable or enable a webhook")
def patch_webhook(webhook_id: str, body: WebhookChange, key: Writer, shared: Shared) -> WebhookOut:
    with shared.session() as session:
        find(session, Webhook, key.tenant_id, webhook_id)
    if body.url is not None:
        _check(body.url, shared)  # which may take a while, so outside of any transaction
    with shared.session() as session:
        webhook = find(session, Webhook, key.tenant_id, webhook_id, lock="delete")
        for name, value in body.model_dump(exclude={"enabled"}, exclude_none=True).items():
            setattr(webhook, name, value)
        if body.enabled is True:
            webhooks.enable(session, webhook)
        elif body.enabled is False:
            webhooks.disable(session, webhook, "asked")
        session.flush()
        return WebhookOut.model_validate(webhook)


@router.delete("/{webhook_id}", summary="Delete a webhook with its deliveries", status_code=204)
def delete_webhook(webhook_id: str, key: Writer, shared: Shared) -> None:
    with shared.session() as session:
        session.delete(find(session, Webhook, key.tenant_id, webhook_id, lock="delete"))


@router.post("/{webhook_id}/rotate-secret", summary="Give a webhook another secret")
def rotate_secret(webhook_id: str, key: Writer, shared: Shared) -> MadeWebhook:
    """The one that it had signs as well for another 24 hours."""
    with shared.session() as session:
        webhook = find(session, Webhook, key.tenant_id, webhook_id, lock="delete")
        webhooks.rotate_secret(session, webhook)
        return MadeWebhook.model_validate(webhook)


@router.post("/{webhook_id}/test", summary="Send a webhook.test", status_code=202)
def test_webhook(webhook_id: str, key: Writer, shared: Shared) -> DeliveryOut:
    with shared.session() as session:
        webhook = find(session, Webhook, key.tenant_id, webhook_id, lock="delete")
        return DeliveryOut.model_validate(webhooks.send_test(session, webhook))


@router.get("/{webhook_id}/deliveries", summary="What a webhook was told, or is to be, newest first")
def list_deliveries(
    webhook_id: str, key: Reader, shared: Shared, limit: Limit = 50, after: After = None
) -> Page[DeliveryOut]:
    """They are kept for 30 days after their end."""
    with shared.reading() as session:
        webhook = find(session, Webhook, key.tenant_id, webhook_id)
        of_it = Delivery.webhook_id == webhook.id
        rows = newest(session, Delivery, key.tenant_id, position(after, ID), limit + 1, of_it)
        return page(rows, limit, lambda row: row.id, _show_deliveries)


@router.post("/{webhook_id}/deliveries/{delivery_id}/retry", summary="Send a delivery again, now", status_code=202)
def retry_delivery(webhook_id: str, delivery_id: str, key: Writer, shared: Shared) -> DeliveryOut:
    """Under the same id, be it that it failed or was received."""
    with shared.session() as session:
        webhook = find(session, Webhook, key.tenant_id, webhook_id, lock="delete")
        delivery = webhooks.find_delivery(session, webhook, delivery_id)
        webhooks.retry(session, webhook, delivery)
        return DeliveryOut.model_validate(delivery)
