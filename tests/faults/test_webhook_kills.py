"""Senders of webhooks are killed at any moment while events come: each event arrives, at its own tenant's receiver only."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlmodel import func, select

from carrel_client.webhooks import verify
from config.clock import system_clock
from config.database import Database
from config.vault import Vault
from tenants.context import TenantContext
from tenants.events import EventLog, emit
from tenants.registry import TenantRegistry
from tenants.secrets import Secrets
from tenants.tables import Event
from tenants.webhooks.endpoints import NewWebhook, Webhooks
from tests.receivers import Answers, Message, receiver
from tests.support import wait_for
from tests.tables import make_tables

MASTER = bytes(range(32))
SENDERS = 2


class Senders:
    def __init__(self, url: str) -> None:
        self._command = [sys.executable, "-m", "tests.faults.webhook_sender", url, MASTER.hex()]
        self.living = [self._start() for _ in range(SENDERS)]

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(self._command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True)

    def kill(self, number: int, after_s: float) -> None:
        """So long after it began to send."""
        process = self.living[number]
        assert process.stdout is not None
        assert process.stdout.readline()
        time.sleep(after_s)
        self._end(process)
        self.living[number] = self._start()

    def end(self) -> None:
        for process in self.living:
            self._end(process)

    def _end(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        process.communicate()


@contextmanager
def sending(url: str) -> Iterator[Senders]:
    senders = Senders(url)
    try:
        yield senders
    finally:
        senders.end()


def _moody(seed: int) -> Answers:
    """Takes a while now and then, and refuses some messages the first time."""
    moods, seen = random.Random(seed), set[str]()

    def answers(message: Message) -> int:
        time.sleep(moods.choice([0.0, 0.0, 0.05]))
        refused = message.id not in seen and moods.random() < 0.01
        seen.add(message.id)
        return 503 if refused else 200

    return answers


def _emit(database: Database, tenant: TenantContext, said: dict[str, int], stop: threading.Event) -> None:
    number = 0
    while not stop.is_set():
        number += 1
        with database.write(tenant) as session:
            emit(session, system_clock, tenant.tenant_id, "document.live", f"doc_{number}", version=number)
        said[tenant.tenant_id] = number
        stop.wait(0.05)


def _prove(url: str, *, kills: int, seed: int) -> None:
    database, moments = Database(url), random.Random(seed)
    make_tables(database)
    registry = TenantRegistry(database, system_clock)
    tenants = [registry.context_of_job(registry.create(name, monthly_tokens=None).id, "test") for name in ("one", "two")]
    webhooks = Webhooks(database, system_clock, Secrets(database, system_clock, Vault([MASTER])), lambda _url: None)
    stop, said = threading.Event(), dict[str, int]()
    with receiver(_moody(1)) as one, receiver(_moody(2)) as two, sending(url) as senders:
        hooks = [
            webhooks.for_tenant(tenant).create(url=hook.url, events=["document.*"])
            for tenant, hook in zip(tenants, (one, two), strict=True)
        ]
        emitting = [threading.Thread(target=_emit, args=(database, tenant, said, stop), daemon=True) for tenant in tenants]
        for thread in emitting:
            thread.start()
        wait_for(lambda: one.messages and two.messages, what="the first messages")
        for kill in range(kills):
            senders.kill(kill % SENDERS, moments.uniform(0.05, 0.6))
            EventLog(database, system_clock).purge(0)
        stop.set()
        for thread in emitting:
            thread.join()
        both = [*zip(tenants, hooks, strict=True)]
        wait_for(lambda: all(_delivered(webhooks, *each) for each in both), what="all of them", timeout_s=180)
    for new, hook, tenant in zip(hooks, (one, two), tenants, strict=True):
        numbers = {verify(each.body, each.headers, new.secret).data["version"] for each in hook.messages}
        assert numbers == set(range(1, max(numbers) + 1)), "of the purged ones too"
        assert len({(each.id, each.body) for each in hook.messages}) == len(numbers), "a message that comes again is the same"
        assert said[tenant.tenant_id] == max(numbers)
    database.close()


def _delivered(webhooks: Webhooks, tenant: TenantContext, new: NewWebhook) -> bool:
    """Whether nothing waits: neither in the outbox nor as a delivery."""
    handle = webhooks.for_tenant(tenant)
    with webhooks.database.read(tenant) as session:
        newest = session.scalar(select(func.max(Event.seq)).select_from(Event)) or 0
    done = handle.get(new.row.id).last_seq >= newest
    return done and not handle.deliveries(new.row.id, state="pending", limit=1)[0]


@pytest.mark.parametrize("sql_url", ["sqlite"], indirect=True)
def test_killed_senders_lose_no_event(sql_url: str) -> None:
    _prove(sql_url, kills=2, seed=5)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_fifty_killed_senders_lose_no_event(sql_url: str) -> None:
    _prove(sql_url, kills=50, seed=6)
