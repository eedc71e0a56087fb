"""`carrel webhook …`: having a tenant's events sent to a URL, looking at what was sent, and sending it again."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from api.cli.common import AsJson, TenantOption, notes, out, print_json, table, tenant_client
from carrel_client import Carrel, Delivery, NewWebhook, Webhook
from config.errors import InvalidInput
from config.settings import Settings

webhooks = typer.Typer(no_args_is_help=True, help="Have a tenant's events sent to a URL, signed, at least once.")

WebhookId = Annotated[str, typer.Argument(help="The webhook's id, whk_…")]
Events = Annotated[list[str] | None, typer.Option("--event", "-e", help="document.live, document.*, *.failed or *; repeat it.")]
Description = Annotated[str | None, typer.Option(help="What it is for.")]
Coalesce = Annotated[int | None, typer.Option(help="Gather events of one type about one subject for so many seconds.")]
COLUMNS = ["id", "url", "events", "state", "reason", "failing since", "last success"]
DELIVERY_COLUMNS = ["id", "event", "type", "subject", "state", "tries", "next", "answer", "error"]


def _client(tenant: str | None) -> Carrel:
    return tenant_client(Settings(), tenant, ["manage"])


def _row(webhook: Webhook) -> list[object]:
    state = [webhook.state, webhook.disabled_reason, webhook.failing_since, webhook.last_success_at]
    return [webhook.id, webhook.url, ", ".join(webhook.events), *state]


def _sent(delivery: Delivery) -> list[object]:
    what = [delivery.id, delivery.event_id, delivery.type, delivery.subject, delivery.state, delivery.attempts]
    return [*what, delivery.due_at, delivery.last_status, delivery.last_error]


def _print(found: list[Webhook], *, as_json: bool) -> None:
    print_json(found) if as_json else table(COLUMNS, [_row(webhook) for webhook in found])


def _print_one(webhook: Webhook, *, as_json: bool) -> None:
    print_json(webhook) if as_json else table(COLUMNS, [_row(webhook)])


def _print_new(new: NewWebhook, *, as_json: bool) -> None:
    if as_json:
        print_json(new)
        return
    notes.print(f"Messages of {new.id} are signed with this secret, which is shown this once:")
    out.print(new.secret)


def _print_delivery(delivery: Delivery, *, as_json: bool) -> None:
    print_json(delivery) if as_json else table(DELIVERY_COLUMNS, [_sent(delivery)])


@webhooks.command("create")
def create_webhook(
    url: Annotated[str, typer.Argument(help="Where events are sent: http or https, at a public address.")],
    event: Events = None,
    description: Description = None,
    coalesce: Coalesce = None,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Have events sent to a URL; all of them, unless --event says which. Prints the secret that messages are signed with.

    Example: carrel webhook create https://example.com/carrel -e 'document.*' -e budget.exhausted --tenant acme
    """
    with _client(tenant) as client:
        new = client.webhooks.create(
            url=url, events=event or ["*"], description=description or "", coalesce_seconds=coalesce or 0
        )
    _print_new(new, as_json=as_json)


@webhooks.command("list")
def list_webhooks(tenant: TenantOption = None, as_json: AsJson = False) -> None:
    """List a tenant's webhooks.

    Example: carrel webhook list --tenant acme
    """
    with _client(tenant) as client:
        _print(list(client.webhooks.list()), as_json=as_json)


@webhooks.command("show")
def show_webhook(webhook_id: WebhookId, tenant: TenantOption = None, as_json: AsJson = False) -> None:
    """Show one webhook: whether it is enabled, and if not, why.

    Example: carrel webhook show whk_01jd… --tenant acme --json
    """
    with _client(tenant) as client:
        _print_one(client.webhooks.get(webhook_id), as_json=as_json)


@webhooks.command("update")
def update_webhook(
    webhook_id: WebhookId,
    url: Annotated[str | None, typer.Option(help="Send there from now on.")] = None,
    event: Events = None,
    description: Description = None,
    coalesce: Coalesce = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Whether anything is sent.")] = None,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given. After --enable, `carrel webhook replay` sends what happened while it was disabled.

    Example: carrel webhook update whk_01jd… --enable --tenant acme
    """
    with _client(tenant) as client:
        changed = client.webhooks.update(
            webhook_id, url=url, events=event or None, description=description, coalesce_seconds=coalesce, enabled=enabled
        )
    _print_one(changed, as_json=as_json)


@webhooks.command("delete")
def delete_webhook(webhook_id: WebhookId, tenant: TenantOption = None, as_json: AsJson = False) -> None:
    """Delete a webhook, its secret, and the record of what was sent to it.

    Example: carrel webhook delete whk_01jd… --tenant acme
    """
    with _client(tenant) as client:
        gone = client.webhooks.delete(webhook_id)
    print_json(gone) if as_json else out.print(f"{gone.id} is deleted.")


@webhooks.command("rotate")
def rotate_secret(
    webhook_id: WebhookId,
    overlap_hours: Annotated[int, typer.Option(help="The present secret signs too for so long; 0 ends it now.")] = 24,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Get a new secret. Give it to the receiver within the overlap: until then both sign every message.

    Example: carrel webhook rotate whk_01jd… --overlap-hours 48 --tenant acme
    """
    with _client(tenant) as client:
        new = client.webhooks.rotate(webhook_id, overlap_hours=overlap_hours)
    _print_new(new, as_json=as_json)


@webhooks.command("test")
def try_webhook(webhook_id: WebhookId, tenant: TenantOption = None, as_json: AsJson = False) -> None:
    """Have an event of type webhook.test sent, once. `carrel webhook deliveries` shows what came of it.

    Example: carrel webhook test whk_01jd… --tenant acme
    """
    with _client(tenant) as client:
        _print_delivery(client.webhooks.test(webhook_id), as_json=as_json)


@webhooks.command("deliveries")
def list_deliveries(
    webhook_id: WebhookId,
    state: Annotated[str | None, typer.Option(help="pending, delivered, or failed: dead letters.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 20,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """List what was or is to be sent, newest first.

    Example: carrel webhook deliveries whk_01jd… --state failed --tenant acme
    """
    with _client(tenant) as client:
        found = list(islice(client.webhooks.deliveries(webhook_id, state=state, page_size=min(limit, 100)), limit))
    print_json(found) if as_json else table(DELIVERY_COLUMNS, [_sent(each) for each in found])


@webhooks.command("replay")
def replay(
    webhook_id: WebhookId,
    delivery: Annotated[str | None, typer.Option(help="Only this delivery, dlv_…")] = None,
    since: Annotated[str | None, typer.Option(help="Events from then on, as 2026-03-10T12:00:00Z.")] = None,
    until: Annotated[str | None, typer.Option(help="Events before then.")] = None,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Send one delivery again, or all events of a range of time that are still kept. Their ids stay the same.

    Example: carrel webhook replay whk_01jd… --since 2026-03-10T12:00:00Z --until 2026-03-10T18:00:00Z --tenant acme
    """
    if (delivery is None) == (since is None):
        raise InvalidInput("Give either --delivery or --since.", field="since")
    with _client(tenant) as client:
        if delivery is not None:
            _print_delivery(client.webhooks.replay_delivery(webhook_id, delivery), as_json=as_json)
        else:
            _print_one(client.webhooks.replay(webhook_id, since=since or "", until=until), as_json=as_json)
