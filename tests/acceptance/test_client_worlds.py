"""What the client's halves stream and wait for around a session, in both worlds, against a running service."""

from __future__ import annotations

import pytest

from carrel_client import NotFoundError, ReplayReport
from tests.looped import WORLDS, client_of
from tests.support import Service


@pytest.mark.parametrize("world", WORLDS)
def test_a_conversation_from_its_first_turn_to_its_end(quick: Service, world: str) -> None:
    (name, _), (_, stranger) = quick.tenant(), quick.tenant()
    with client_of(world, quick.url, key=quick.key(name, "query", "ingest", "converse")) as carrel:
        session = carrel.sessions.create(subject="ann")
        carrel.sessions.say(session.id, "user", "I bought a green shelf.")
        carrel.session_documents.create(session.id, text="Shelves carry maps.", title="Shelves").wait()
        carrel.memories.add("Ann collects maps.", subject="ann")
        assert [found.memory.text for found in carrel.memories.search("maps", subject="ann").data] == ["Ann collects maps."]
        assert [turn.content for turn in carrel.recall("green shelf", subject="ann").turns] == ["I bought a green shelf."]
        context = carrel.chat_context(session=session.id, message="Where do maps lie?", memories=True, max_tokens=1000)
        assert context.messages is not None
        assert context.messages[-1]["content"].endswith("Where do maps lie?")
        assert [cited.title for cited in context.citations] == ["Shelves"]
        kept = carrel.session_documents.promote(session.id, collection="default", turns=True)
        assert kept.transcript is not None
        kept.transcript.wait()
        [document] = kept.documents
        assert document.submitted.job is not None
        carrel.jobs.wait(document.submitted.job.id)
        told = [line["type"] for line in carrel.exports.session(session.id)]
        assert told == ["session", "turn", "document", "document_text", "session_end"]
        carrel.query("Where do maps lie?")
        *_, report = carrel.traces.replays(last=10)
        assert isinstance(report, ReplayReport)
        assert report.replayed + sum(report.skipped.values()) == report.traces
        with pytest.raises(NotFoundError):
            next(stranger.exports.session(session.id))
        erasure = carrel.erasures.session(session.id)
        assert (carrel.erasures.get(erasure.id).state, erasure.session_id) == ("running", session.id)
        with pytest.raises(TimeoutError):
            carrel.erasures.wait(erasure.id, timeout_s=0)
        with pytest.raises(NotFoundError):
            carrel.sessions.get(session.id)
        with pytest.raises(NotFoundError):
            stranger.erasures.get(erasure.id)
