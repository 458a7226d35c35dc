"""`lambdahat webhooks ...`: who is told of what happens."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from lambdahat._cli_common import Key, Url, connect, out
from lambdahat._requests import DEFAULT_URL
from lambdahat.objects import Delivery, MadeWebhook

app = typer.Typer(help="Have your own services told of what happens to jobs.", no_args_is_help=True)

WebhookArgument = Annotated[str, typer.Argument(help="Id of a webhook: whk_….")]


@app.command()
def add(
    address: Annotated[str, typer.Argument(help="Where to send to: https://….")],
    event: Annotated[list[str] | None, typer.Option(help="What to tell of; may be repeated; by default all.")] = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Add a webhook, and print its secret, this once."""
    with connect(url, key) as client:
        _show_secret(client.create_webhook(address, event or ["*"], description))


@app.command(name="list")
def list_(url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List webhooks, newest first."""
    table = Table("id", "address", "events", "state", "last delivered", box=None)
    with connect(url, key) as client:
        for hook in client.list_webhooks():
            state = "enabled" if hook.disabled_at is None else f"disabled: {hook.disabled_reason}"
            last = f"{hook.last_delivered_at:%Y-%m-%d %H:%M:%S}" if hook.last_delivered_at else "never"
            table.add_row(hook.id, escape(hook.url), " ".join(hook.events), state, last)
    out.print(table)


@app.command()
def remove(webhook: WebhookArgument, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Remove a webhook with what is left to be sent to it."""
    with connect(url, key) as client:
        client.delete_webhook(webhook)
    out.print(f"{webhook}  removed")


@app.command()
def enable(webhook: WebhookArgument, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Send again to a webhook that was disabled, what happens from now on."""
    with connect(url, key) as client:
        out.print(f"{client.update_webhook(webhook, enabled=True).id}  enabled")


@app.command()
def rotate(webhook: WebhookArgument, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Give a webhook another secret; the one before signs as well for a day."""
    with connect(url, key) as client:
        _show_secret(client.rotate_webhook_secret(webhook))


@app.command(name="test")
def send_test(webhook: WebhookArgument, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Send a webhook.test."""
    with connect(url, key) as client:
        _show([client.test_webhook(webhook)])


@app.command()
def deliveries(
    webhook: WebhookArgument,
    limit: Annotated[int, typer.Option(min=1, help="How many, at most.")] = 50,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """What was sent to a webhook, newest first, and what came of it."""
    with connect(url, key) as client:
        _show([delivery for delivery, _ in zip(client.list_deliveries(webhook), range(limit), strict=False)])


@app.command()
def retry(
    webhook: WebhookArgument,
    delivery: Annotated[str, typer.Argument(help="Id of a delivery: msg_….")],
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Send a delivery again, now."""
    with connect(url, key) as client:
        _show([client.retry_delivery(webhook, delivery)])


def _show_secret(webhook: MadeWebhook) -> None:
    out.print(webhook.id)
    out.print(f"{webhook.secret}  [dim]shown this once[/]")


def _show(found: list[Delivery]) -> None:
    table = Table("id", "event", "state", "attempts", "status", "next attempt", "error", box=None)
    for delivery in found:
        due = f"{delivery.next_attempt_at:%Y-%m-%d %H:%M:%S}" if delivery.next_attempt_at else ""
        status, error = delivery.last_status or "", escape((delivery.last_error or "")[:80])
        table.add_row(
            delivery.id,
            delivery.event,
            delivery.state,
            f"{delivery.attempts}",
            f"{status}",
            due,
            " ".join(error.split()),
        )
    out.print(table)
