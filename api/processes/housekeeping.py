"""What a worker looks after beside its jobs: reserved budget of the lost, dead processes and their jobs, old records.

Each chore fails alone: it is logged and tried again, and the others go on. What goes through old records has a thread of its
own: a first large purge takes minutes, for which no dead worker's jobs are to wait.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from api.processes.heartbeat import Heartbeat
from api.processes.repairs import RepairLoop
from api.wiring.worker import WorkerServices
from tenants.ledger.anomalies import AnomalyWatch

log = logging.getLogger(__name__)

PURGE_EVERY_S = 3600.0
PLACE_EVERY_S = STORES_EVERY_S = COMPACT_EVERY_S = 5.0
LET_GO_EVERY_S = 600.0
FORGET_EVERY_S = 60.0  # memories, of which nobody is told from their moment on


@dataclass(slots=True)
class Chore:
    name: str
    work: Callable[[], object]
    every_s: float
    due: float = 0.0


class Housekeeping:
    def __init__(self, chores: list[Chore], leads: Callable[[], bool]) -> None:
        """`leads`: whether this worker is the one among several that does them."""
        self._chores, self._leads = chores, leads

    def run(self, every_s: float, stop: threading.Event) -> None:
        while not stop.wait(every_s):
            self.tick()

    def tick(self) -> None:
        if not self._try("who leads", self._leads):
            return
        for chore in self._chores:
            if time.monotonic() >= chore.due:
                chore.due = time.monotonic() + chore.every_s
                self._try(chore.name, chore.work)

    def _try(self, name: str, work: Callable[[], object]) -> object:
        try:
            return work()
        except Exception:
            log.exception("housekeeping failed; it is tried again", extra={"chore": name})
            return None


def housekeeping(services: WorkerServices, heartbeat: Heartbeat, repairs: RepairLoop) -> Housekeeping:
    """What somebody waits for; none of it takes longer than a few seconds."""
    chores = [
        Chore("holds", lambda: _sweep_holds(services), 0.0),
        Chore("dead processes", lambda: _bury(services, repairs), 0.0),
        Chore("jobs of the dead", lambda: take_over(services), 0.0),
        Chore("expired sessions", services.sweeper.run_once, 0.0),
        Chore("deleted tenants", services.removal.run_once, 0.0),
        Chore("what is over of sessions", services.erasing.run_once, 0.0),
        Chore("audit chain", services.sealer.run_once, 0.0),
        Chore("placements", services.placer.run_once, PLACE_EVERY_S),
        Chore("expired memories", services.memories.run_once, FORGET_EVERY_S),
        Chore("old turns", services.compactor.run_once, COMPACT_EVERY_S),
        Chore("files and stores", services.stores.run_once, STORES_EVERY_S),
        Chore("vectors of old turns", services.old_vectors.run_once, LET_GO_EVERY_S),
    ]
    return Housekeeping(chores, heartbeat.leads)


def clearing(services: WorkerServices, heartbeat: Heartbeat) -> Housekeeping:
    """What goes through all that is old, in short transactions, for as long as it takes."""
    core = services.core
    chores = [
        Chore("old audit entries", services.sealer.purge, PURGE_EVERY_S),
        Chore("finished jobs", services.worker.purge_finished, PURGE_EVERY_S),
        Chore("former versions", services.reconciler.expire, PURGE_EVERY_S),
        Chore("events", lambda: services.events.purge(core.settings.events_keep_days), PURGE_EVERY_S),
        Chore("webhook deliveries", lambda: services.webhooks.outbox.purge(core.settings.events_keep_days), PURGE_EVERY_S),
        Chore("old traces", services.traces.run_once, PURGE_EVERY_S),
        Chore("idempotency keys", core.idempotency.purge, PURGE_EVERY_S),
        Chore("unusual usage", AnomalyWatch(core.database, core.clock).run_once, PURGE_EVERY_S),
    ]
    return Housekeeping(chores, heartbeat.leads)


def _sweep_holds(services: WorkerServices) -> None:
    if swept := services.core.ledger.sweep():
        log.warning("holds of lost workers were ended", extra={"holds": swept})


def _bury(services: WorkerServices, repairs: RepairLoop) -> None:
    if dead := services.instances.bury():
        log.warning("processes were found dead", extra={"instances": [instance.id for instance in dead]})
        repairs.wake()


def take_over(services: WorkerServices) -> None:
    """Jobs under way of an executor that no living worker is: it died, or it was stopped and not started again."""
    owners = services.worker.owners()  # before the living: who begins now announces itself first
    lost = owners - {instance.executor for instance in services.instances.living()}
    if lost and (count := services.worker.take_over(sorted(lost))):
        log.warning("jobs of lost workers were taken over", extra={"executors": sorted(lost), "jobs": count})
