"""What tests of webhooks share: both sides of them over one database, whose time stands still until it is set."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from config.database import Database
from config.vault import Vault
from ingestion.fetch.addresses import UrlPolicy
from ingestion.fetch.connections import Resolve, resolve
from ingestion.fetch.poster import Poster
from ingestion.webhooks import WebhookSender
from tenants.context import Principal, PrincipalKind, TenantContext
from tenants.events import emit
from tenants.secrets import Secrets
from tenants.webhooks.endpoints import NewWebhook, TenantWebhooks, Webhooks
from tenants.webhooks.outbox import WebhookOutbox
from tests.unit.conftest import SetClock

EVERY_PORT = range(1, 65536)
LEASE_S = 45


def context_of(tenant_id: str, _for: str = "") -> TenantContext:
    return TenantContext(tenant_id, b"", Principal(PrincipalKind.JOB, "job", frozenset()))


@dataclass
class Desk:
    database: Database
    clock: SetClock
    allowed: tuple[str, ...] = ("127.0.0.1",)
    resolve: Resolve = resolve
    seconds: float = 10.0
    concurrency: int = 4
    senders: list[WebhookSender] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.policy = UrlPolicy.of(EVERY_PORT, self.allowed)
        secrets = Secrets(self.database, self.clock, Vault([bytes(32)]))
        self.webhooks = Webhooks(self.database, self.clock, secrets, self.policy.target)
        self.outbox = WebhookOutbox(self.database, self.clock, lease_s=LEASE_S, chance=random.Random(7))
        self.sender = self.another_sender()

    def another_sender(self) -> WebhookSender:
        poster = Poster(self.policy, seconds=self.seconds, resolve=self.resolve)
        made = WebhookSender(self.outbox, self.webhooks, poster, context_of, concurrency=self.concurrency)
        self.senders.append(made)
        return made

    def of(self, tenant: str) -> TenantWebhooks:
        return self.webhooks.for_tenant(context_of(tenant))

    def hook(self, tenant: str, url: str, *events: str, coalesce_seconds: int = 0) -> NewWebhook:
        return self.of(tenant).create(url=url, events=events or ("document.*",), coalesce_seconds=coalesce_seconds)

    def say(self, tenant: str, *types: str, subject: str = "doc_1", **data: object) -> None:
        for name in types:
            with self.database.write(context_of(tenant)) as session:
                emit(session, self.clock, tenant, name, subject, **data)

    def later(self, seconds: float) -> None:
        """Time passes, and what is due by then is sent."""
        self.clock.now += round(seconds * 1000)
        self.sender.run_once()

    def states(self, tenant: str, hook: NewWebhook) -> list[str]:
        """Of its deliveries, oldest event first."""
        return [row.state for row in sorted(self.of(tenant).deliveries(hook.row.id, limit=100)[0], key=lambda row: row.seq)]

    def close(self) -> None:
        for sender in self.senders:
            sender.close()
