"""Sessions against a running service: through client, command line and HTTP; they outlive a restart, and expire on time."""

from __future__ import annotations

import json
import time

import httpx2
import pytest
from typer.testing import CliRunner

from api.cli.session import sessions
from carrel_client import ConflictError, InvalidRequestError, NotFoundError, PermissionDeniedError
from tests.support import PATIENCE, Service, wait_for


def test_a_conversation_is_kept_and_each_tenants_own(quick: Service) -> None:
    name, client = quick.tenant()
    _, other = quick.tenant()
    made, again = (
        client.sessions.create(subject="ann", title="Returns", tags=["support"], metadata={"n": 1}, idempotency_key="one")
        for _ in range(2)
    )
    assert again == made
    first = client.sessions.say(made.id, "user", "How long?", said_at="2026-03-10T12:00:00+01:00", idempotency_key="k")
    assert (first.seq, first.said_at) == (1, "2026-03-10T11:00:00.000Z")
    calls = [{"id": "1"}]
    turns = [{"role": "assistant", "content": "", "tool_calls": calls}, {"role": "tool", "content": "{}", "speaker": "db"}]
    assert [turn.seq for turn in client.sessions.append(made.id, turns).turns] == [2, 3]
    with pytest.raises(InvalidRequestError) as refused:
        client.sessions.append(made.id, [turns[0], {"role": "user", "content": "another", "idempotency_key": "k"}])
    assert refused.value.code == "idempotency_key_reused"
    listed = list(client.sessions.turns(made.id, page_size=1))
    assert [(turn.role, turn.content, turn.speaker) for turn in listed] == [
        *(("user", "How long?", None), ("assistant", "", None), ("tool", "{}", "db"))
    ]
    assert list(client.sessions.turns(made.id, order="newest", page_size=2)) == listed[::-1]
    assert client.sessions.turn(made.id, first.id) == listed[0]
    assert [each.id for each in client.sessions.list(subject="ann", tag="support", state="open")] == [made.id]
    assert list(other.sessions.list()) == []
    for call in (other.sessions.get, other.sessions.close, other.sessions.fork, lambda key: list(other.sessions.turns(key))):
        with pytest.raises(NotFoundError):
            call(made.id)
    fork = client.sessions.fork(made.id, turn_id=listed[1].id)
    assert (fork.turns, fork.forked_from, fork.forked_at_seq) == (2, made.id, 2)
    assert client.sessions.close(made.id).state == "closed"
    with pytest.raises(ConflictError):
        client.sessions.say(made.id, "user", "too late")
    assert client.sessions.resume(made.id).state == "open"
    reader = quick.client(quick.key(name, "query"))
    assert reader.sessions.get(made.id).turns == 3
    with pytest.raises(PermissionDeniedError):
        reader.sessions.say(made.id, "user", "hello")
    entries = [*client.audit.list(action="POST /v1/sessions/{session_id}/turns")][::-1]
    assert [entry.status for entry in entries] == [201, 201, 422, 409, 403]  # one each, whoever writes it
    assert [entry.detail for entry in entries[:2]] == [{"session": made.id, "turns": count} for count in (1, 2)]
    assert list(other.audit.list(action="POST /v1/sessions/{session_id}/turns")) == []
    types = [event.type for event in client.events.list(type="session.")]
    assert types == ["session.created", "session.created", "session.closed", "session.resumed"]


def test_a_subjects_token_reaches_its_own_sessions(quick: Service) -> None:
    _, client = quick.tenant()
    tokens = {who: client.token(subject=who, scopes=["query", "converse"]).token for who in ("ann", "bob")}
    ann, bob = (quick.client(token) for token in tokens.values())
    made = ann.sessions.create(title="mine")
    assert made.subject == "ann"
    ann.sessions.say(made.id, "user", "hello")
    for call in (bob.sessions.get, bob.sessions.fork, lambda key: bob.sessions.say(key, "user", "hello")):
        with pytest.raises(NotFoundError):
            call(made.id)
    assert list(bob.sessions.list()) == []
    for refused in (
        lambda: bob.sessions.create(subject="ann"),
        lambda: list(bob.sessions.list(subject="ann")),
        lambda: ann.sessions.update(made.id, max_turns=None),
    ):
        with pytest.raises(PermissionDeniedError):
            refused()
    assert ann.sessions.update(made.id, title=None, tags=["t"]).tags == ["t"]
    assert client.sessions.get(made.id).turns == 1


def test_what_cannot_be_kept_is_refused(quick: Service) -> None:
    name, client = quick.tenant()
    made = client.sessions.create(subject="ann")
    url, headers = f"{quick.url}/v1/sessions/{made.id}", {"Authorization": f"Bearer {quick.key(name)}"}
    deep, long = "[" * 900 + "]" * 900, "y" * 17_000
    turn = '{"turns": [{"role": "user", "content": "x", "metadata": %s}]}'
    for path, body in (
        ("/turns", turn % '{"x": NaN}'),
        ("/turns", turn % '{"x": "\\ud800"}'),
        ("/turns", turn % '{"\\u0000": 1}'),
        ("/turns", turn % f'{{"x": {deep}}}'),
        ("/turns", turn % f'{{"x": "{long}"}}'),
        ("/turns", '{"turns": []}'),
        ("/turns", '{"turns": [{"role": "robot", "content": "x"}]}'),
        ("/turns", '{"turns": [{"role": "user", "content": "x", "said_at": "1969-12-31T23:59:59Z"}]}'),
        ("/turns", '{"turns": [{"role": "user", "content": "x", "said_at": "2026-03-10T12:00:00"}]}'),
        ("/turns", '{"turns": [{"role": "user", "content": "x", "said_at": "9999-12-31T23:59:59-12:00"}]}'),
    ):
        answer = httpx2.post(url + path, content=body, headers={**headers, "Content-Type": "application/json"})
        assert answer.status_code == 422, (body[:80], answer.text)
    odd = {"a\u0001": 2**80, "b": 1e300, "c": "\u0000"}
    client.sessions.say(made.id, "user", "Ω\u202e💥", metadata=odd)
    assert next(client.sessions.turns(made.id)).metadata.keys() == odd.keys()
    assert client.sessions.get(made.id).turns == 1


def test_the_command_line_keeps_a_conversation(quick: Service) -> None:
    name, _ = quick.tenant()

    def show(*arguments: str) -> str:
        done = CliRunner().invoke(sessions, [*arguments, "--tenant", name], env=quick.env)
        assert done.exit_code == 0, done.output
        return done.stdout

    def run(*arguments: str) -> dict[str, object]:
        answer: dict[str, object] = json.loads(show(*arguments, "--json"))
        return answer

    made = str(run("create", "ann", "--title", "Returns", "--tag", "a", "--max-turns", "5")["id"])
    turn = run("append", made, "hello there", "--role", "assistant", "--speaker", "Bot", "--key", "k")
    assert turn["seq"] == 1
    assert [each["content"] for each in run("turns", made, "--newest")] == ["hello there"]  # type: ignore[index, attr-defined]
    assert run("tag", made, "x", "y")["tags"] == ["x", "y"]
    assert [run(verb, made)["state"] for verb in ("close", "archive", "resume")] == ["closed", "archived", "open"]
    assert run("fork", made, "--turn", str(turn["id"]))["turns"] == 1
    assert run("get", made)["max_turns"] == 5
    assert made in show("list", "--subject", "ann")
    assert "hello there" in show("turns", made)


def test_a_session_ends_on_time_and_its_rows_go(quick: Service) -> None:
    _, client = quick.tenant()
    made = client.sessions.create(subject="ann", idle_ttl_seconds=1)
    kept = client.sessions.create(subject="ann", absolute_ttl_seconds=3600)
    client.sessions.say(made.id, "user", "hello")
    began = time.monotonic()
    with pytest.raises(NotFoundError):
        wait_for(lambda: client.sessions.get(made.id).id is None, what="its end")
    assert time.monotonic() - began < 5 * PATIENCE
    wait_for(lambda: [event.subject for event in client.events.list(type="session.expired")] == [made.id], what="its event")
    assert [each.id for each in client.sessions.list()] == [kept.id]
