"""Workers that are killed outright while sessions end, again and again: all of those goes, documents with their points and
files too, and what others have is whole.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from carrel_client import Carrel, NotFoundError
from rag.corpus import Chunk, Document, DocumentVersion
from rag.recall.tables import TurnVector
from rag.sessions.tables import ChatSession, Turn
from tenants.limits.quotas import used_of
from tenants.tables import Event
from tests.faults.converged import Inside, inside
from tests.support import Service, running_service, wait_for

pytestmark = [pytest.mark.full, pytest.mark.xdist_group("processes")]
OVER, TURNS, WITH_DOCUMENT, KILLS = 40, 200, 6, 5


@dataclass(frozen=True)
class Tenant:
    name: str
    client: Carrel
    over: list[str]
    kept: str


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("ends"), embedding_runtime="hash", sweep_seconds=0.1) as service:
        yield service


def _talk(client: Carrel, turns: int, *, document: bool, **times: int) -> str:
    made = client.sessions.create(subject="ann", tags=["t"], **times).id
    client.sessions.append(made, [{"role": "user", "content": f"{number} of {made}"} for number in range(turns)])
    if document:
        client.session_documents.create(made, text=f"What {made} is about: oak, pine.", external_id="paper").wait()
    return made


def _filled(service: Service) -> Tenant:
    name, client = service.tenant()
    over = [_talk(client, TURNS, document=n < WITH_DOCUMENT, absolute_ttl_seconds=3600) for n in range(OVER)]
    return Tenant(name, client, over, _talk(client, 3, document=True))


def _left(found: Inside) -> int:
    """How many turns and vectors there are, each of a session that is there."""
    with found.database.system_read() as session:
        owners = {*session.scalars(select(col(ChatSession.id)))}
        rows = [*session.scalars(select(col(Turn.session_id))), *session.scalars(select(col(TurnVector.session_id)))]
    assert {*rows} <= owners
    return len(rows)


def test_sessions_end_whole_whatever_dies(service: Service) -> None:
    chance = random.Random(7)
    tenants = [_filled(service) for _ in range(2)]
    kept = 2 * 2 * 3
    with inside(Path(service.data_dir)) as found:
        everything = kept + 2 * 2 * OVER * TURNS
        wait_for(lambda: _left(found) == everything, what="vectors of all turns", timeout_s=120)
        for tenant in tenants:
            assert len(found.points(tenant.name)) == WITH_DOCUMENT + 1
        with found.database.system_write() as session:
            session.execute(sa.update(ChatSession).where(col(ChatSession.absolute_ttl_s) == 3600).values(expires_at=1))
        goals = [everything, *sorted(chance.sample(range(everything // 4, everything - 500), KILLS - 1), reverse=True)]
        for goal in goals:  # the first kill while they become expired
            wait_for(lambda goal=goal: _left(found) <= goal, what="some rows removed")  # type: ignore[misc]
            service.kill("worker")
            for tenant in tenants:
                with pytest.raises(NotFoundError):
                    tenant.client.sessions.get(chance.choice(tenant.over))
        wait_for(lambda: _left(found) == kept and _sessions(found) == 2, what="all of them removed", timeout_s=120)
        named = [blob for tenant in tenants for blob in _is_whole(found, tenant)]
        assert sorted(path.name for path in (service.data_dir / "blobs").glob("??/*")) == sorted({*named})


def _sessions(found: Inside) -> int:
    with found.database.system_read() as session:
        return session.scalar(select(sa.func.count()).select_from(ChatSession)) or 0


def _is_whole(found: Inside, tenant: Tenant) -> list[str]:
    """What is left is of the session that stays; each of the others was told of once and counts no more. Return the names of
    stored contents.
    """
    client = tenant.client
    assert [turn.seq for turn in client.sessions.turns(tenant.kept)] == [1, 2, 3]
    assert [hit.external_id for hit in client.query("oak pine", session=tenant.kept, collections=[]).passages] == ["paper"]
    context = found.context(tenant.name)
    with found.database.read(context) as session:
        assert len(session.scalars(select(Document)).all()) == 1
        assert found.points(tenant.name) == sorted(session.scalars(select(col(Chunk.id))))
        assert used_of(session, context.tenant_id).sessions == 1
        told = session.scalars(select(col(Event.subject)).where(col(Event.type) == "session.expired")).all()
        versions = session.scalars(select(DocumentVersion)).all()
    assert sorted(told) == sorted(tenant.over)
    return [blob for version in versions for blob in (version.content_blob, version.text_blob) if blob]
