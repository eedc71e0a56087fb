"""Whether the service can do its work: each part is asked on its own, and one that does not answer holds up no other."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from api.schemas.documents import Part
from config.database import Database
from ingestion.intake.admission import DiskMark
from ingestion.jobs.instances import Instances
from rag.embedding.runtime import Embedder
from rag.store.base import VectorStore

PATIENCE_S = 1.5
MAKE_ROOM = (
    "Free some space, set CARREL_DATA_DIR to a larger disk, or lower CARREL_DISK_FREE_BYTES and CARREL_DISK_FREE_PERCENT."
)

Check = Callable[[], Part]


class Readiness:
    """Asks every part at once. A part that still has not answered the last time is not asked again: no threads pile up."""

    def __init__(self, checks: Mapping[str, Check], *, patience_s: float = PATIENCE_S) -> None:
        self._checks, self._patience_s = dict(checks), patience_s
        self._pool = ThreadPoolExecutor(len(self._checks), "readiness")
        self._asked: dict[str, Future[Part]] = {}
        self._lock = threading.Lock()

    async def parts(self) -> dict[str, Part]:
        """Within `patience_s`, and without an exception."""
        answers = {name: self._ask(name) for name in self._checks}
        await asyncio.wait([asyncio.wrap_future(answer) for answer in answers.values()], timeout=self._patience_s)
        return {name: self._part(answer) for name, answer in answers.items()}

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, name: str) -> Future[Part]:
        with self._lock:
            if name not in self._asked or self._asked[name].done():
                self._asked[name] = self._pool.submit(self._checks[name])
            return self._asked[name]

    def _part(self, answer: Future[Part]) -> Part:
        if not answer.done():
            return Part(ok=False, detail=f"no answer within {self._patience_s:g} s", advice="Its log may say why.")
        error = answer.exception()
        return answer.result() if error is None else Part(ok=False, detail=type(error).__name__, advice="See the api's log.")


def checks(
    *,
    database: Database,
    instances: Instances,
    store: VectorStore,
    embedder: Embedder,
    data_dir: Path,
    mark: DiskMark,
    draining: threading.Event,
) -> dict[str, Check]:
    return {
        "database": lambda: _database(database),
        "engine": lambda: _engine(store),
        "model": lambda: _model(embedder),
        "worker": lambda: _worker(instances),
        "disk": lambda: check_disk(data_dir, mark),
        "draining": lambda: Part(ok=not draining.is_set(), detail="stopping" if draining.is_set() else "no"),
    }


def _model(embedder: Embedder) -> Part:
    """In order even while a provider is not: questions whose vectors are known are answered."""
    model, state = embedder.model, embedder.state
    return Part(ok=True, detail=f"{model.name}: {model.where}" + (f"; {state}" if state else ""))


def _database(database: Database) -> Part:
    database.ping()
    return Part(ok=True, detail="answers")


def _engine(store: VectorStore) -> Part:
    health = store.health()
    advice = None if health.ok else "`carrel serve` restarts it; its log says why it stopped."
    return Part(ok=health.ok, detail=health.detail, advice=advice)


def _worker(instances: Instances) -> Part:
    living = sum(instance.kind == "worker" for instance in instances.living())
    if living:
        return Part(ok=True, detail=f"{living} running")
    return Part(ok=False, detail="none is running", advice="Documents wait. `carrel serve` starts one, or `carrel worker`.")


def check_disk(folder: Path, mark: DiskMark) -> Part:
    """By writing: permissions and mount options alone do not tell whether the disk takes a file.

    Below the mark it is in order all the same: whoever sends questions here should go on, and only documents are refused.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"carrel")
            file.flush()
        free, least = mark.room()
    except OSError as error:
        advice = f"Make {folder} writable, or set CARREL_DATA_DIR to a folder that is."
        return Part(ok=False, detail=f"cannot be written: {error.strerror}", advice=advice)
    detail = f"{free / 1e9:.1f} GB free"
    if free < least:
        return Part(ok=True, detail=f"{detail}, of {least / 1e9:.1f} needed: new documents are refused", advice=MAKE_ROOM)
    return Part(ok=True, detail=detail)
