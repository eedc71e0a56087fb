"""Traces are written behind the answers, in batches: a question waits for none, and each is on record within a second.

A process that is killed loses those of its last second; one that is asked to stop loses none. An answer names a trace only
if that is going to be kept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from sys import getsizeof
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.ids import new_id
from rag.sessions.tables import GONE, ChatSession
from rag.traces.left import Asker, Left, TracePolicy, body_of, bounds_of, is_sampled, packed_vectors, vectors_of
from rag.traces.tables import Trace, TraceErasure

FLUSH_S = 1.0  #: at most so much is lost when the process is killed
#: With more, as while the database does not answer, further questions leave none.
MAX_WAITING, MAX_BYTES = 5_000, 64 << 20
LEAST_BYTES = 10_000  #: of one without its texts
BATCH = 500  #: in one transaction, of one tenant

PolicyOf = Callable[[str], TracePolicy]  #: by tenant
_INSERT, _RAW = sa.insert(Trace), {"dml_strategy": "raw"}
_ERASURES = select(TraceErasure)
_LIVING = select(col(ChatSession.id)).where(
    col(ChatSession.id).in_(sa.bindparam("ids", expanding=True)), col(ChatSession.state).not_in(GONE)
)


@dataclass(frozen=True, slots=True)
class _Waiting:
    id: str
    tenant_id: str
    at: int
    asker: Asker
    policy: TracePolicy
    left: Left
    bytes: int

    @property
    def subject(self) -> str | None:
        return self.left.subject if self.asker.subject is None else self.asker.subject


class Tracer:
    """Of one process. `space`: in which it embeds."""

    def __init__(self, database: Database, clock: Clock, policy_of: PolicyOf, space: str) -> None:
        self._database, self._clock, self._policy_of, self._space = database, clock, policy_of, space
        self._waiting: dict[str, list[_Waiting]] = {}  # by tenant
        self._count = self._bytes = 0
        self._lock, self._flushing = threading.Lock(), threading.Lock()

    def leave(self, asker: Asker, left: Left, *, request: str) -> str | None:
        """The trace's id; None if this question leaves none. `request`: the same for its repetitions."""
        tenant_id = asker.tenant_id
        policy = self._policy_of(tenant_id)
        if not is_sampled(tenant_id, request, policy.sample):
            return None
        waiting = _Waiting(new_id("trc"), tenant_id, self._clock(), asker, policy, left, _bytes_of(left))
        with self._lock:
            if self._count >= MAX_WAITING or (self._count and self._bytes + waiting.bytes > MAX_BYTES):
                return None
            self._count, self._bytes = self._count + 1, self._bytes + waiting.bytes
            self._waiting.setdefault(tenant_id, []).append(waiting)
        return waiting.id

    def flush(self) -> None:
        """Write what waits. Raises what the database raises; then it is written next time."""
        with self._flushing:
            for tenant_id in [*self._waiting]:
                while batch := self._waiting.get(tenant_id, [])[:BATCH]:
                    self._write(batch)
                    self._forget(tenant_id, len(batch))

    def flush_if_waiting(self, tenant_id: str, trace_id: str) -> None:
        """So that whoever asks for a trace of just now finds it."""
        with self._lock:
            waits = any(each.id == trace_id for each in self._waiting.get(tenant_id, ()))
        if waits:
            self.flush()

    def _forget(self, tenant_id: str, count: int) -> None:
        with self._lock:
            self._bytes -= sum(each.bytes for each in self._waiting[tenant_id][:count])
            del self._waiting[tenant_id][:count]
            self._count -= count
            if not self._waiting[tenant_id]:
                del self._waiting[tenant_id]

    def _write(self, batch: Sequence[_Waiting]) -> None:
        with self._database.write(batch[0]) as session:
            if rows := [self._row(each) for each in _not_erased(session, batch)]:
                session.execute(_INSERT, rows, execution_options=_RAW)

    def _row(self, waiting: _Waiting) -> dict[str, Any]:
        left, contents = waiting.left, waiting.policy.contents
        matrix = vectors_of(left) if contents == "full" else None
        vectors = None if matrix is None else packed_vectors(matrix)
        return {
            "id": waiting.id,
            "tenant_id": waiting.tenant_id,
            "at": waiting.at,
            "kind": left.kind,
            "subject": waiting.subject,
            "session_id": left.session_id,
            "bounds": bounds_of(waiting.asker),
            "contents": contents,
            "body": body_of(left, waiting.asker, contents),
            "space": None if vectors is None else self._space,
            "vectors": vectors,
        }


def _bytes_of(left: Left) -> int:
    """About what it takes while it waits: above all texts, which are not written."""
    texts = [passage.text for passage in left.answer.passages] if left.answer is not None else []
    texts += [left.packing.text] if left.packing is not None else []
    said = (left.words.get("message"), *left.words.get("pins", ()))
    return LEAST_BYTES + sum(map(getsizeof, texts)) + sum(map(getsizeof, said))


def _not_erased(session: Session, batch: Sequence[_Waiting]) -> list[_Waiting]:
    """Without those of subjects that were erased since, and of sessions that are gone."""
    if all(each.subject is None and each.left.session_id is None for each in batch):
        return [*batch]
    erased = {row.who: row.at for row in session.scalars(_ERASURES)}
    named = {each.left.session_id for each in batch} - {None}
    living = {None, *(session.scalars(_LIVING, {"ids": [*named]}) if named else ())}
    return [each for each in batch if each.left.session_id in living and not (erased and _is_erased(each, erased))]


def _is_erased(waiting: _Waiting, erased: Mapping[str, int]) -> bool:
    subject = waiting.subject
    return subject is not None and erased.get(waiting.asker.pseudonym(subject), -1) >= waiting.at
