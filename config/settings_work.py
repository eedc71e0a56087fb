"""Settings of bringing documents: what is accepted, how it is read and fetched, who works on it and what waits."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import BaseModel, Field

from config.settings_types import MIB, Names, Ports


def _cores() -> int:
    return len(os.sched_getaffinity(0))


class WorkSettings(BaseModel):
    max_document_bytes: int = Field(32 * MIB, ge=1024, description="Largest document accepted.")
    max_text_chars: int = Field(20_000_000, ge=1024, description="Longest text that one document may become.")
    max_chunks: int = Field(50_000, ge=1, description="Most chunks that one document may become.")
    parse_seconds: int = Field(15, ge=1, le=300, description="Wall and CPU time that reading one document may take.")
    parse_memory_bytes: int = Field(1024 * MIB, ge=256 * MIB, description="Address space of the process that reads a document.")
    url_fetch: Literal["on", "off"] = Field("on", description="Whether documents can be brought by URL.")
    url_fetch_ports: Ports = Field((80, 443), description="Ports that are fetched from, separated by commas.")
    url_fetch_allow: Names = Field(
        (),
        description="Hosts, addresses and networks, separated by commas, that are fetched from although they are not public. "
        "Every tenant can then read what they answer.",
    )
    url_fetch_seconds: int = Field(60, ge=1, le=600, description="Time that fetching one URL may take, redirects included.")
    workers: int = Field(
        1, ge=1, le=64, description="Worker processes that `carrel serve` starts; one uses every core for embedding."
    )
    worker_concurrency: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Documents a worker has in flight when as many wait; the default is four a core, 4 to 64. "
        "Up to twice as many while several tenants have work.",
    )
    worker_tenant_concurrency: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Documents of one tenant that a worker has in flight at most while others have work; "
        "the default is an equal share.",
    )
    worker_fairness: Literal["on", "off"] = Field(
        "on",
        description="`on` takes jobs of all tenants in turns, those of one by priority and age; "
        "`off` by priority and age alone, for one tenant only.",
    )
    worker_scheduling: Literal["idle", "normal"] = Field(
        "idle", description="`idle` lets queries go first on a busy machine; `normal` shares equally."
    )
    queue_tenant_jobs: int = Field(
        10_000, ge=1, le=10**6, description="Jobs of one tenant that may wait; beyond that its new documents get 429."
    )
    queue_jobs: int = Field(
        100_000, ge=1, le=10**7, description="Jobs of all tenants that may wait; beyond that new documents get 503."
    )
    disk_free_bytes: int = Field(
        1024 * MIB,
        ge=0,
        description="New documents get 507 while the data directory's file system has less room than this.",
    )
    disk_free_percent: float = Field(
        1.0, ge=0, le=90, description="The same as a share of that file system; the larger of the two counts."
    )
    hold_lease_seconds: int = Field(120, ge=1, description="How long reserved budget waits for a worker that went silent.")
    sweep_seconds: float = Field(5.0, gt=0, description="How often returned holds and finished jobs are looked after.")
    reconcile_seconds: float = Field(
        3600.0, gt=0, description="How often vectors, jobs, contents and sums are compared with SQL, and repaired."
    )

    @property
    def jobs_in_flight(self) -> int:
        """Of one worker. On 2 cores the model has all that it can batch with 8; one job gives 0.79 of it."""
        return self.worker_concurrency or min(64, max(4, 4 * _cores()))
