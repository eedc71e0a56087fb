"""Webhooks through a real service whose operator allows the receiver's address: by client, by command, by HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from carrel_client import ConflictError, InvalidRequestError, PermissionDeniedError
from carrel_client.webhooks import verify
from tests.receivers import receiver
from tests.support import carrel, running_service, wait_for


def test_events_reach_their_tenants_receiver(tmp_path: Path) -> None:
    with receiver() as hook, receiver() as foreign:
        allowed = {"url_fetch_allow": "127.0.0.1", "url_fetch_ports": f"80,443,{hook.port},{foreign.port}"}
        with running_service(tmp_path, embedding_runtime="hash", **allowed) as service:
            name, client = service.tenant()
            _, other = service.tenant()
            made = [
                client.webhooks.create(url=hook.url, events=["document.*"], idempotency_key="one")
                for _ in range(2)  # sent again, as after an answer that was lost
            ]
            assert made[0] == made[1]
            other.webhooks.create(url=foreign.url, events=["*"])
            with pytest.raises(InvalidRequestError, match="public address"):
                client.webhooks.create(url="http://127.0.0.2/", events=["*"])
            bounded = service.client(service.key(name, "manage", collections=["default"]))
            with pytest.raises(PermissionDeniedError):
                bounded.webhooks.get(made[0].id)

            client.documents.create(text="Loans last four weeks.", external_id="rules").wait()
            wait_for(lambda: "document.live" in hook.types, what="the document's event")
            events = {event.id: event for event in client.events.list(type="document.")}
            for message in hook.messages:
                assert verify(message.body, message.headers, made[0].secret) == events[message.id]
            assert not {each.event["subject"] for each in foreign.messages} & {each.subject for each in events.values()}

            webhook_id, env = made[0].id, service.env
            arguments = ("--tenant", name, "--json")
            tested = carrel("webhook", "test", webhook_id, *arguments, env=env)
            assert json.loads(tested.stdout)["type"] == "webhook.test", tested.stderr
            wait_for(lambda: "webhook.test" in hook.types, what="the test")
            listed = wait_for(
                lambda: [*client.webhooks.deliveries(webhook_id, state="delivered")][len(events) :], what="all to be recorded"
            )
            assert listed
            before = len(hook.messages)
            replayed = carrel("webhook", "replay", webhook_id, "--since", "2026-01-01T00:00:00Z", *arguments, env=env)
            assert json.loads(replayed.stdout)["replaying"] is True, replayed.stderr
            wait_for(lambda: len(hook.messages) == before + len(events), what="the replay")
            client.webhooks.update(webhook_id, enabled=False)
            shown = carrel("webhook", "list", *arguments, env=env)
            assert [(each["state"], each["disabled_reason"]) for each in json.loads(shown.stdout)] == [
                ("disabled", "by_request")
            ]
            with pytest.raises(ConflictError):
                client.webhooks.test(webhook_id)
            client.webhooks.delete(webhook_id)
            assert [*client.webhooks.list()] == []
