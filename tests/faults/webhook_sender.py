"""A process that sends webhooks until it is killed.

Run as `python -m tests.faults.webhook_sender URL MASTER_KEY`, to be killed at any moment.
"""

from __future__ import annotations

import random
import sys
import threading

from config.clock import system_clock
from config.database import Database
from config.vault import Vault
from ingestion.fetch.addresses import UrlPolicy
from ingestion.fetch.poster import Poster
from ingestion.webhooks import WebhookSender
from tenants.registry import TenantRegistry
from tenants.secrets import Secrets
from tenants.webhooks.endpoints import Webhooks
from tenants.webhooks.outbox import WebhookOutbox

LEASE_S = 1.0  # what a killed one held is free again within the test


def main(url: str, master_key: str) -> None:
    database = Database(url)
    policy = UrlPolicy.of(range(1, 65536), ["127.0.0.1"])
    secrets = Secrets(database, system_clock, Vault([bytes.fromhex(master_key)]))
    webhooks = Webhooks(database, system_clock, secrets, policy.target)
    outbox = WebhookOutbox(database, system_clock, lease_s=LEASE_S, chance=random.Random())
    context_of = TenantRegistry(database, system_clock).context_of_job
    WebhookSender(outbox, webhooks, Poster(policy, seconds=0.8), context_of, concurrency=4).start()
    print("sending", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
