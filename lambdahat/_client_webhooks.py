"""The client's part on webhooks."""

from collections.abc import Iterator, Sequence

from lambdahat._requests import Requests, ident
from lambdahat.objects import Delivery, MadeWebhook, Webhook


class WebhookMethods(Requests):
    """/v1/webhooks."""

    def create_webhook(self, url: str, events: Sequence[str] = ("*",), description: str = "") -> MadeWebhook:
        """Have an address told of events, such as 'job.succeeded'; by default of all.

        Keep its `secret`, which is shown this once: `lambdahat.verify_webhook` asks for it.
        """
        body = {"url": url, "events": list(events), "description": description}
        # Not by `_post`: the server keeps no answer that has a secret in it, so this is not done once for each key.
        return MadeWebhook.model_validate(self._http.json("POST", "/v1/webhooks", json=body))

    def webhook(self, webhook: str | Webhook) -> Webhook:
        """The webhook with this id, as it is now."""
        return self._get(f"/v1/webhooks/{ident(webhook)}", Webhook)

    def list_webhooks(self) -> Iterator[Webhook]:
        """All webhooks, newest first."""
        return self._pages("/v1/webhooks", Webhook)

    def update_webhook(
        self,
        webhook: str | Webhook,
        url: str | None = None,
        events: Sequence[str] | None = None,
        description: str | None = None,
        enabled: bool | None = None,
    ) -> Webhook:
        """Give a webhook another address, other events or another description; disable it, or enable it again."""
        changes = {"url": url, "events": events and list(events), "description": description, "enabled": enabled}
        body = {field: value for field, value in changes.items() if value is not None}
        answer = self._http.json("PATCH", f"/v1/webhooks/{ident(webhook)}", json=body, idempotent=True)
        return Webhook.model_validate(answer)

    def delete_webhook(self, webhook: str | Webhook) -> None:
        """Delete a webhook with its deliveries."""
        self._http.send("DELETE", f"/v1/webhooks/{ident(webhook)}")

    def rotate_webhook_secret(self, webhook: str | Webhook) -> MadeWebhook:
        """Give a webhook another secret. The one before it signs as well for another 24 hours."""
        return MadeWebhook.model_validate(self._http.json("POST", f"/v1/webhooks/{ident(webhook)}/rotate-secret"))

    def test_webhook(self, webhook: str | Webhook) -> Delivery:
        """Send a `webhook.test`; its state tells later what came of it."""
        return Delivery.model_validate(self._http.json("POST", f"/v1/webhooks/{ident(webhook)}/test"))

    def list_deliveries(self, webhook: str | Webhook) -> Iterator[Delivery]:
        """What a webhook was told in the last 30 days, or is to be, newest first."""
        return self._pages(f"/v1/webhooks/{ident(webhook)}/deliveries", Delivery)

    def retry_delivery(self, webhook: str | Webhook, delivery: str | Delivery) -> Delivery:
        """Send a delivery again, now, under the same id."""
        path = f"/v1/webhooks/{ident(webhook)}/deliveries/{ident(delivery)}/retry"
        return self._post(path, Delivery, None, idempotent=True)
