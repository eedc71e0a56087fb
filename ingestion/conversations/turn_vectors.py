"""Gives turns their vectors soon after they were said, before any batch of documents: in small batches of one tenant's
sessions, tenants in turns, paid like documents. What is spent is counted at each session; turns of one that has a budget are
embedded by themselves, within it, and those that it does not cover stay without a vector.

Which turns wait follows from the session's row (`turns > embedded_turns`), so an append costs nothing for it, and whatever was
under way when a worker died is found again. The oldest living worker does it; vectors that are written twice are the same.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import ROWS_BY_KEY, Database
from config.errors import BudgetExhausted, NotFound, Unavailable
from ingestion.webhooks import ContextOf
from rag.embedding.runtime import Matrix
from rag.embedding.service import Embedded, EmbeddingService
from rag.fairness import FairClock
from rag.recall.tables import TurnVector
from rag.recall.turns import indexed_text, packed
from rag.sessions.finding import alive
from rag.sessions.spending import SessionMeter
from rag.sessions.tables import IS_BEHIND, ChatSession, Turn
from rag.types import BookedMeter, Meter
from tenants.context import TenantContext
from tenants.counters import insert_missing
from tenants.ledger.budget import Ledger

log = logging.getLogger(__name__)

BATCH, SESSIONS = 64, 16  # turns in one hold, and sessions that they are of
LOOK_EVERY_S = 0.1  # of the second within which a turn is to be found by its meaning; a look without work takes 0.1 ms
LEADS_EVERY_S = 2.0
PAUSE_S = 30.0  # before a tenant without budget is tried again; its turns are found by their words meanwhile
RETRY_S = 1.0  # while the model is away
NOTHING_S = 0.3  # before a tenant is looked at again whose sessions that wait are all over
_NO_SYNC = {"synchronize_session": False}

_TENANTS = sa.select(col(ChatSession.tenant_id)).where(IS_BEHIND).group_by(col(ChatSession.tenant_id))
#: Those with the fewest turns first: somebody talks in them, while a long one is being copied.
_SESSIONS = (
    sa.select(
        col(ChatSession.id),
        col(ChatSession.embedded_turns),
        sa.func.coalesce(col(ChatSession.budget_tokens), col(ChatSession.budget_micro_usd)).is_not(None).label("has_budget"),
    )
    .where(IS_BEHIND, *alive(sa.bindparam("now", type_=sa.BigInteger())))
    .order_by(col(ChatSession.turns) - col(ChatSession.embedded_turns), col(ChatSession.id))
    .limit(SESSIONS)
)
_TURNS = (
    sa.select(col(Turn.id), col(Turn.session_id), col(Turn.seq), col(Turn.speaker), col(Turn.content))
    .where(col(Turn.session_id) == sa.bindparam("session"), col(Turn.seq) > sa.bindparam("after"))
    .order_by(col(Turn.seq))
    .limit(sa.bindparam("limit"))
    .execution_options(**ROWS_BY_KEY)
)
_HELD = (
    select(ChatSession)
    .where(col(ChatSession.id).in_(sa.bindparam("ids", expanding=True)), *alive(sa.bindparam("now", type_=sa.BigInteger())))
    .order_by(col(ChatSession.id))
    .with_for_update()
    .execution_options(**ROWS_BY_KEY)
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A turn that has no vector."""

    id: str
    session_id: str
    seq: int
    text: str
    alone: bool  #: its session has a budget of its own


class TurnEmbedding:
    """`context_of`: for whom it acts, by the tenant's id."""

    def __init__(
        self, database: Database, clock: Clock, embedding: EmbeddingService, ledger: Ledger, context_of: ContextOf
    ) -> None:
        self._database, self._clock, self._embedding, self._ledger = database, clock, embedding, ledger
        self._context_of, self._turns = context_of, FairClock()
        self._paused: dict[str, float] = {}  #: tenants without budget, and until when

    def run_once(self) -> int:
        """Embed one batch of one tenant; how many turns were done with. Raise Unavailable while the model is away."""
        now = time.monotonic()
        self._paused = {tenant: until for tenant, until in self._paused.items() if until > now}
        with self._database.system_read() as session:
            behind = [tenant for tenant in session.scalars(_TENANTS) if tenant not in self._paused]
        if not behind:
            return 0
        tenant = self._turns.first(sorted(behind))
        self._turns.charge(tenant, 1)  # before anything can fail: else one whose turns cannot be embedded stays first
        try:
            turns = self._embed(self._context_of(tenant, "turns"))
        except (BudgetExhausted, NotFound):  # or the tenant was deleted just now
            turns, self._paused[tenant] = 0, now + PAUSE_S
        if not turns:
            self._paused.setdefault(tenant, now + NOTHING_S)
        self._turns.charge(tenant, max(turns - 1, 0))
        return turns

    def adopt(self) -> None:
        """Sessions whose vectors another model made are begun anew. The cache may know them; otherwise they are paid for."""
        others = select(TurnVector).where(col(TurnVector.space) != self._embedding.space.id).limit(SESSIONS)
        while True:
            with self._database.system_write() as session:
                ids = {row.session_id for row in session.scalars(others)}
                if not ids:
                    return
                session.execute(sa.delete(TurnVector).where(col(TurnVector.session_id).in_(ids)), execution_options=_NO_SYNC)
                begun = (
                    sa.update(ChatSession)
                    .where(col(ChatSession.id).in_(ids))
                    .values(embedded_turns=col(ChatSession.compacted_turns))
                )
                session.execute(begun, execution_options=_NO_SYNC)

    def _embed(self, context: TenantContext) -> int:
        waiting = self._waiting(context)
        if shared := [turn for turn in waiting if not turn.alone]:
            self._embed_batch(context, shared)
        for session_id in dict.fromkeys(turn.session_id for turn in waiting if turn.alone):
            self._embed_within(context, session_id, [turn for turn in waiting if turn.session_id == session_id])
        return len(waiting)

    def _embed_within(self, context: TenantContext, session_id: str, turns: Sequence[Waiting]) -> None:
        """As many of the first turns as the session's budget covers, by halves; if not even one, all are done without."""
        first = turns
        while first:
            try:
                self._embed_batch(context, first, within=session_id)
            except NotFound:  # it is over
                return
            except BudgetExhausted as error:
                if not error.of_session:
                    raise
                first = first[: len(first) // 2]
            else:
                return
        with self._database.write(context) as session:
            self._keep(session, turns, (), None)

    def _embed_batch(self, context: TenantContext, turns: Sequence[Waiting], *, within: str | None = None) -> None:
        """`within`: the session that they are of, whose budget is asked first."""
        said, meter = [turn for turn in turns if turn.text], self._ledger.for_tenant(context, "ingest")
        texts = [turn.text for turn in said]
        tokens, embedded = self._embedding.count_tokens(texts) if said else [], None
        if said:
            hold = hashlib.blake2b("".join(turn.id for turn in said).encode(), digest_size=12).hexdigest()
            paying = meter if within is None else self._within(context, within, meter)
            embedded = self._embedding.embed_batch(context, paying, texts, hold_id=f"turns:{hold}", tokens=tokens, urgent=True)
        with self._database.write(context) as session:
            held = self._keep(session, turns, said, embedded)
            if embedded is None:
                return
            if within is None and embedded.charged:
                _count_spent(held, said, tokens, embedded.charged, self._ledger.price)
            if embedded.cached or embedded.deduplicated:
                meter.count_saved(session, embedded.cached, embedded.deduplicated, embedded.hits)

    def _within(self, context: TenantContext, session_id: str, meter: BookedMeter) -> Meter:
        return SessionMeter(self._database, context, session_id, meter, price=self._ledger.price)

    def _waiting(self, context: TenantContext) -> list[Waiting]:
        """Each session gets an equal part of the batch, and what others leave of theirs."""
        with self._database.read(context) as session:
            sessions = session.execute(_SESSIONS, {"now": self._clock()}).all()
            found: list[Waiting] = []
            for done, row in enumerate(sessions):
                limit = (BATCH - len(found)) // (len(sessions) - done)
                given = {"session": row.id, "after": row.embedded_turns, "limit": limit}
                found += [
                    Waiting(turn.id, turn.session_id, turn.seq, indexed_text(turn.speaker, turn.content), row.has_budget)
                    for turn in session.execute(_TURNS, given)
                ]
        return found

    def _keep(
        self, session: Session, waiting: Sequence[Waiting], said: Sequence[Waiting], embedded: Embedded | None
    ) -> Mapping[str, ChatSession]:
        """Vectors, and how far each session is, while its row is held: of one that is over meanwhile nothing is kept. Return
        the others.
        """
        upto = {turn.session_id: turn.seq for turn in waiting}
        held = {row.id: row for row in session.scalars(_HELD, {"ids": sorted(upto), "now": self._clock()})}
        vectors: Matrix | Sequence[None] = [] if embedded is None else embedded.vectors
        for turn, vector in zip(said, vectors, strict=True):
            if turn.session_id in held and turn.seq > held[turn.session_id].compacted_turns:
                row = TurnVector(
                    turn_id=turn.id,
                    tenant_id=held[turn.session_id].tenant_id,
                    session_id=turn.session_id,
                    seq=turn.seq,
                    space=self._embedding.space.id,
                    vector=packed(vector),
                )
                insert_missing(session, TurnVector, row.model_dump())
        for chat in held.values():
            chat.embedded_turns = max(chat.embedded_turns, upto[chat.id])
        return held


def _count_spent(
    held: Mapping[str, ChatSession], said: Sequence[Waiting], tokens: Sequence[int], charged: int, price: int
) -> None:
    """What a batch cost, at the sessions that it was for: each its own turns' tokens, or the same part of them where some of
    the batch was known already.
    """
    for session_id, chat in held.items():
        own = sum(count for turn, count in zip(said, tokens, strict=True) if turn.session_id == session_id)
        spent = own * charged // sum(tokens)
        chat.spent_tokens += spent
        chat.spent_cost += spent * price


class TurnLoop:
    """Runs it in a worker, in a thread of its own. `leads`: whether this worker is the one among several that does."""

    def __init__(self, work: TurnEmbedding, leads: Callable[[], bool]) -> None:
        self._work, self._leads, self._stopping = work, leads, threading.Event()
        self._thread = threading.Thread(target=self._run, name="turns", daemon=True)
        self._asked_at, self._leading, self._adopted = float("-inf"), False, False

    def start(self) -> None:
        self._thread.start()

    def close(self, patience_s: float = 1.0) -> None:
        """A batch under way is given a moment; what it does not reach, the next start does."""
        self._stopping.set()
        self._thread.join(patience_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            wait_s = LOOK_EVERY_S
            try:
                if self._may() and self._work.run_once():
                    continue
            except Unavailable as error:
                log.warning("turns wait for their vectors", extra={"reason": error.detail})
                wait_s = RETRY_S
            except Exception:
                if not self._stopping.is_set():
                    log.exception("turns could not be embedded; it is tried again")
                wait_s = RETRY_S
            self._stopping.wait(wait_s)

    def _may(self) -> bool:
        if time.monotonic() - self._asked_at >= LEADS_EVERY_S:
            self._leading, self._asked_at = self._leads(), time.monotonic()
        if self._leading and not self._adopted:
            self._work.adopt()
            self._adopted = True
        return self._leading
