"""Traces and replays over HTTP, with the client and on the command line: each tenant's and each subject's own."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from carrel_client import Carrel, ConflictError, InvalidRequestError, NotFoundError, Replay, ReplayReport
from tests.support import Service, carrel, carrel_here, environment, start_service, wait_for

ROOMS = ("lamp", "map", "globe", "shelf", "atlas", "ladder")
LONG = " ".join(f"The {word} stands in room {word}, and nobody else may have it." for word in ROOMS * 6)


@pytest.fixture
def tenants(quick: Service) -> list[tuple[str, Carrel]]:
    made = [quick.tenant() for _ in range(2)]
    for name, client in made:
        client.collections.create(name="fine", profile="precise")
        for collection in ("default", "fine"):
            client.documents.create(text=f"{LONG} {name}", external_id="rooms", collection=collection).wait()
    return made


def test_a_question_leaves_a_trace_that_is_replayed_by_its_tenant_alone(tenants: list[tuple[str, Carrel]]) -> None:
    (_, client), (_, other) = tenants
    answer = client.query("where is the lamp?", top_k=3)
    context = client.context("where is the lamp?", max_tokens=300)
    assert answer.trace_id is not None
    assert context.trace_id is not None
    trace = client.traces.get(answer.trace_id)
    assert (trace.kind, trace.query, trace.found) == ("query", "where is the lamp?", len(answer.passages))
    assert [passage["id"] for passage in trace.passages or ()] == [passage.id for passage in answer.passages]
    assert (trace.contents, trace.vectors, trace.collections["default"]["profile"]) == ("full", True, "standard")
    used = client.usage().total.charged
    for trace_id in (answer.trace_id, context.trace_id):
        replay = client.traces.replay(trace_id)
        assert (replay.empty, replay.vector, replay.tokens, replay.rbo) == (True, "stored", 0, pytest.approx(1.0))
    assert client.usage().total.charged == used
    assert [each.id for each in client.traces.list()] == [context.trace_id, answer.trace_id]
    assert [each.id for each in client.traces.list(kind="query", page_size=1)] == [answer.trace_id]
    for refused in (other.traces.get, other.traces.replay):
        with pytest.raises(NotFoundError):
            refused(answer.trace_id)
    assert list(other.traces.list()) == []
    with pytest.raises(InvalidRequestError):
        client.traces.replay(answer.trace_id, profile="none")
    with pytest.raises(NotFoundError):
        client.traces.replay(answer.trace_id, collections=["none"])


def test_a_subject_reaches_its_own_traces_alone(quick: Service, tenants: list[tuple[str, Carrel]]) -> None:
    _, client = tenants[0]
    own = {}
    for subject in ("alice", "bob"):
        speaking = quick.client(client.token(subject=subject).token)
        own[subject] = (speaking, speaking.query(f"where is the map of {subject}?").trace_id or "")
        assert speaking.traces.get(own[subject][1]).subject == subject
    alice, traced = own["alice"]
    assert alice.traces.replay(traced).empty
    with pytest.raises(NotFoundError):
        alice.traces.get(own["bob"][1])
    told = [*alice.traces.replays(last=10)]
    assert [type(each) for each in told] == [Replay, ReplayReport]
    assert {each.id for each in client.traces.list(subject="bob")} == {own["bob"][1]}
    assert len({each.id for each in client.traces.list()}) == 2


def test_what_the_plan_keeps_is_left(quick: Service, tenants: list[tuple[str, Carrel]]) -> None:
    (name, client), (_, other) = tenants
    with quick.admin as admin:
        admin.admin.tenants.override(name, "trace_contents", "ids", reason="test")
        trace_id = client.query("where is the atlas?").trace_id or ""
        trace = client.traces.get(trace_id)
        assert (trace.contents, trace.query, trace.vectors, trace.passages is None) == ("ids", None, False, False)
        with pytest.raises(ConflictError, match="without its question"):
            client.traces.replay(trace_id)
        assert [*client.traces.replays(last=5)][-1].skipped == {"conflict": 1}  # type: ignore[union-attr]
        admin.admin.tenants.override(name, "trace_sample", 0, reason="test")
    assert client.query("where is the atlas now?").trace_id is None
    assert client.context("where is the atlas now?").trace_id is None
    assert other.query("where is the atlas?").trace_id is not None


def test_the_command_shows_what_changed_and_reports_many(quick: Service, tenants: list[tuple[str, Carrel]]) -> None:
    name, client = tenants[0]
    trace_id = client.query("where is the globe?", top_k=5).trace_id or ""
    shown = carrel_here("replay", trace_id, "-t", name, env=quick.env).splitlines()
    assert shown[0].startswith(f"{trace_id}  ")
    assert shown[1].split() == ["then", "now", "score", "then", "score", "now", "shared", "document", "text"]
    assert shown[-1].startswith("Nothing changed: ")
    other = carrel_here("replay", trace_id, "-c", "fine", "-t", name, env=quick.env)
    assert "≈" in other
    assert "overlapping" in other
    assert "rank-biased overlap 0." in other
    assert "The lamp stands in room" in other or "stands in room" in other
    for number in range(3):
        client.context(f"where is the shelf {number}?")
    wait_for(lambda: len([*client.traces.list()]) == 4, what="traces to be written")
    done = carrel_here("replay", "--last", "4", "-t", name, "--json", env=quick.env)
    lines = [json.loads(line) for line in done.splitlines()]
    assert [next(iter(line)) for line in lines] == ["replay"] * 4 + ["report"]
    report = lines[-1]["report"]
    assert (report["replayed"], report["empty"], report["contexts_equal"], report["rbo"]) == (4, 4, 3, pytest.approx(1))
    told = carrel_here("replay", "--last", "4", "--collection", "fine", "-t", name, env=quick.env)
    assert "0 of 4 answers are as they were" in told
    assert "could not" not in told
    refused = json.loads(carrel("replay", "-t", name, "--json", env=quick.env).stderr)
    assert refused["error"]["code"] == "invalid_input"


def test_a_conversation_is_replayed_as_of_then_and_as_of_now(quick: Service, tenants: list[tuple[str, Carrel]]) -> None:
    (name, client), (_, other) = tenants
    session = client.sessions.create(subject="ann").id
    said = [{"role": "user", "content": "Where is my lamp?"}, {"role": "assistant", "content": "In the hall, by the door."}]
    client.sessions.append(session, said)
    client.session_documents.create(session, text="The lamp is in the hall since Monday.").wait()
    client.memories.add(subject="ann", memories=[{"text": "The lamp of Ann is green"}])
    context = client.context(session=session, message="Which lamp?", memories=True, collections=["default"], max_tokens=900)
    recall = client.sessions.recall(session, "lamp")
    assert "since Monday" in context.text
    traces = [context.trace_id or "", recall.trace_id or ""]
    client.sessions.append(session, [{"role": "user", "content": "I gave the lamp away."}])
    for trace_id in traces:
        replay = client.traces.replay(trace_id)
        assert (replay.empty, replay.tokens, replay.conversation and replay.conversation.as_of) == (True, 0, "then"), replay
        now = client.traces.replay(trace_id, as_of="now")
        assert now.conversation is not None
        assert "I gave the lamp away." in {item.snippet for item in now.conversation.items if item.change == "came"}
        assert (now.empty, client.traces.get(trace_id).session_id) == (False, session)
        with pytest.raises(NotFoundError):
            other.traces.replay(trace_id)
    wait_for(lambda: len([*client.traces.list(session_id=session)]) == 2, what="traces to be written")
    assert "as of then" in (same := carrel_here("replay", session, "-t", name, env=quick.env))
    assert "2 of 2 answers are as they were" in same
    assert "1 of 1 contexts are equal." in same
    shown = carrel_here("replay", session, "--as-of", "now", "-t", name, env=quick.env)
    assert "I gave the lamp away." in shown
    assert "Conversation as of now. Tokens then→now: recent " in shown
    assert "0 of 2 answers are as they were" in shown
    client.erasures.session(session)
    with pytest.raises(NotFoundError):
        client.traces.replay(traces[0])


@pytest.mark.full
def test_a_service_that_is_asked_to_stop_keeps_every_trace(tmp_path: Path) -> None:
    service = start_service(tmp_path, environment(tmp_path, embedding_runtime="hash"))
    clients = [service.tenant()[1] for _ in range(2)]
    for client in clients:
        client.documents.create(text=LONG).wait()
    left = {client.query(f"where is the lamp {number}?").trace_id for number in range(20) for client in clients}
    assert service.stop() == 0
    with closing(sqlite3.connect(tmp_path / "carrel.db")) as connection:
        assert {row[0] for row in connection.execute("SELECT id FROM traces")} == left
