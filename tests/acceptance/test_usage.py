"""Usage and budgets against a running service: by key and collection, set and overridden, and each tenant's own."""

from __future__ import annotations

import csv
import io
import json

import pytest

from carrel_client import BudgetExhaustedError, InvalidRequestError, PermissionDeniedError
from config.clock import day, isoformat, system_clock
from tests.support import Service, carrel


def test_usage_names_keys_and_collections_and_budgets_hold(quick: Service) -> None:
    (name, client), (_, other) = quick.tenant(), quick.tenant()
    client.collections.create(name="maps")
    client.documents.create(text="The lamp stands here.", collection="maps").wait()
    second = quick.client(quick.key(name, "query"))
    second.query("where is the lamp?", collections=["maps"])
    second.query("where is the globe?", collections=["maps", "default"])
    groups = client.usage(group_by=["key", "operation", "collection"]).groups
    assert len({group.key for group in groups}) == 2
    assert sorted((group.operation, group.collection) for group in groups) == [
        ("ingest", "maps"),
        ("query", ""),
        ("query", "maps"),
    ]
    used = client.usage().used
    assert sum(group.charged for group in groups) == used > 0
    assert other.usage(group_by=["key"]).groups == []
    rows = [*csv.DictReader(io.StringIO(client.export_usage(month=day(system_clock())[:7])))]
    assert [int(row["charged"]) for row in rows][-1] == used == sum(int(row["charged"]) for row in rows[:-1])
    confined = quick.client(quick.key(name, collections=["maps"]))
    assert confined.usage().used == used
    for tells_all in (lambda: confined.usage(group_by=["collection"]), lambda: confined.export_usage(month="2026-11")):
        with pytest.raises(PermissionDeniedError):
            tells_all()
    for wrong in (lambda: client.usage(first="2026-11-31"), lambda: client.export_usage(month="2026")):
        with pytest.raises(InvalidRequestError):
            wrong()


def test_the_operator_sets_and_overrides_budgets(quick: Service) -> None:
    (name, client), (_, other) = quick.tenant(), quick.tenant()

    def budget(*arguments: str) -> list[dict[str, object]]:
        done = carrel("budget", *arguments, "--tenant", name, "--json", env=quick.env)
        assert done.returncode == 0, done.stderr
        shown: list[dict[str, object]] = json.loads(done.stdout)
        return shown

    assert [(each["kind"], each["span"]) for each in budget("show")] == [
        (kind, span) for kind in ("embedding", "llm") for span in ("month", "day")
    ]
    with quick.admin as admin:
        admin.admin.budgets.set(name, kind="embedding", span="day", tokens=0)
        _, today, *_ = admin.admin.budgets.show(name)
        assert (today.tokens.limit, today.tokens.remaining, today.micro_usd.limit) == (0, 0, None)
        with pytest.raises(InvalidRequestError):
            admin.admin.budgets.set(name, kind="embedding", span="day", tokens=-1)
    with pytest.raises(BudgetExhaustedError):
        client.documents.create(text="Not for nothing.")
    other.documents.create(text="Not for nothing.").wait()
    until = isoformat(system_clock() + 3_600_000)
    budget("override", "--by", "day", "--tokens", "1000", "--until", until, "--reason", "a test")
    [today] = [each for each in client.usage().budgets if (each.kind, each.span) == ("embedding", "day")]
    assert (today.tokens.limit, today.tokens.override_until) == (1000, until)
    shown = carrel("budget", "show", "--tenant", name, env=quick.env).stdout
    assert until in shown
    told = {event.type: event.data for event in client.events.list(type="budget.")}
    assert told["budget.changed"]["limit"] == "embedding_tokens_day"
    assert told["budget.exhausted"]["kind"] == "embedding"
    exported = carrel("usage", "--tenant", name, "--export", day(system_clock())[:7], "--json", env=quick.env).stdout
    assert json.loads(exported)["total"]["charged"] == 0
