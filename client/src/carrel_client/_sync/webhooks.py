"""Webhooks: having events sent to a URL of yours, and `verify` for whoever receives them there.

`verify` needs the standard library only. It follows Standard Webhooks 1.0.0, so any library of that verifies as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from carrel_client._sync.transport import Transport, pages
from carrel_client.exchange import path_of
from carrel_client.webhooks import Delivery, NewWebhook, Webhook


class Webhooks:
    """`carrel.webhooks`. Needs the scope `manage`, and a key that is confined to nothing."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        url: str,
        events: Sequence[str],
        description: str = "",
        coalesce_seconds: int = 0,
        idempotency_key: str | None = None,
    ) -> NewWebhook:
        """`events`: as `document.live`, `document.*`, `*.failed` or `*`. The answer's `secret` is shown this once.

        Example: `hook = carrel.webhooks.create(url="https://example.com/carrel", events=["document.*"])`
        """
        body = {"url": url, "events": list(events), "description": description, "coalesce_seconds": coalesce_seconds}
        return NewWebhook.parse(self._transport.call("POST", _PATH, json=body, idempotency_key=idempotency_key))

    def list(self, *, page_size: int = 100) -> Iterator[Webhook]:
        """All of them, fetched page by page.

        Example: `urls = [hook.url for hook in carrel.webhooks.list()]`
        """
        for item in pages(self._transport, _PATH, page_size):
            yield Webhook.parse(item)

    def get(self, webhook_id: str) -> Webhook:
        """What is known of a webhook; not its secret.

        Example: `print(carrel.webhooks.get(hook.id).state)`
        """
        return Webhook.parse(self._transport.call("GET", path_of(_PATH, webhook_id)))

    def update(
        self,
        webhook_id: str,
        *,
        url: str | None = None,
        events: Sequence[str] | None = None,
        description: str | None = None,
        coalesce_seconds: int | None = None,
        enabled: bool | None = None,
    ) -> Webhook:
        """Change what is given. What happened while it was disabled is sent by `replay` only.

        Example: `carrel.webhooks.update(hook.id, enabled=False)`
        """
        fields: dict[str, Any] = {
            **{"url": url, "events": None if events is None else [*events], "description": description},
            **{"coalesce_seconds": coalesce_seconds, "enabled": enabled},
        }
        body = {name: value for name, value in fields.items() if value is not None}
        return Webhook.parse(self._transport.call("PATCH", path_of(_PATH, webhook_id), json=body, repeatable=True))

    def delete(self, webhook_id: str) -> Webhook:
        """Nothing is sent any more.

        Example: `carrel.webhooks.delete(hook.id)`
        """
        return Webhook.parse(self._transport.call("DELETE", path_of(_PATH, webhook_id)))

    def rotate(self, webhook_id: str, *, overlap_hours: int = 24, idempotency_key: str | None = None) -> NewWebhook:
        """A new secret, shown this once. The present one signs beside it for `overlap_hours`; 0 ends all former ones.

        Example: `secret = carrel.webhooks.rotate(hook.id).secret`
        """
        path, body = path_of(_PATH, webhook_id, "rotate"), {"overlap_hours": overlap_hours}
        return NewWebhook.parse(self._transport.call("POST", path, json=body, idempotency_key=idempotency_key))

    def test(self, webhook_id: str, *, idempotency_key: str | None = None) -> Delivery:
        """Have an event of type `webhook.test` sent, once; `deliveries` shows what came of it.

        Example: `carrel.webhooks.test(hook.id)`
        """
        path = path_of(_PATH, webhook_id, "test")
        return Delivery.parse(self._transport.call("POST", path, idempotency_key=idempotency_key))

    def deliveries(self, webhook_id: str, *, state: str | None = None, page_size: int = 100) -> Iterator[Delivery]:
        """Newest first; of one `state`: pending, delivered, or failed, which are dead letters.

        Example: `failed = list(carrel.webhooks.deliveries(hook.id, state="failed"))`
        """
        for item in pages(self._transport, path_of(_PATH, webhook_id, "deliveries"), page_size, state=state):
            yield Delivery.parse(item)

    def replay(self, webhook_id: str, *, since: str, until: str | None = None, idempotency_key: str | None = None) -> Webhook:
        """Send the events of `since` ≤ time < `until` again, as "2026-03-10T12:00:00Z", whatever became of them.

        Example: `carrel.webhooks.replay(hook.id, since="2026-03-10T12:00:00Z")`
        """
        path, body = path_of(_PATH, webhook_id, "replay"), {"since": since, "until": until}
        return Webhook.parse(self._transport.call("POST", path, json=body, idempotency_key=idempotency_key))

    def replay_delivery(self, webhook_id: str, delivery_id: str, *, idempotency_key: str | None = None) -> Delivery:
        """Send one delivery again, be it delivered or failed.

        Example: `carrel.webhooks.replay_delivery(hook.id, delivery.id)`
        """
        path = path_of(_PATH, webhook_id, "deliveries", delivery_id, "replay")
        return Delivery.parse(self._transport.call("POST", path, idempotency_key=idempotency_key))


_PATH = "/v1/webhooks"
