"""Recall over HTTP, with the client and on the command line: at once by words, soon by meaning, and nobody else's."""

from __future__ import annotations

import json
import threading
import time

import pytest

from carrel_client import Carrel, InvalidRequestError, NotFoundError, PermissionDeniedError
from carrel_client.recall import Recalled
from tests.support import Service, carrel, carrel_here, wait_for_turns

SAID = (
    ("user", "Ann", "I bought an oak shelf for the hall.", "2026-03-02T09:00:00Z"),
    ("assistant", "Ben", "Which colour?", "2026-03-02T09:00:05Z"),
    ("user", "Ann", "Green.", "2026-03-02T09:00:20Z"),
    ("user", "Ann", "The fern died.", "2026-03-09T18:00:00Z"),
)


def _tenant(service: Service) -> tuple[str, Carrel]:
    """Its name, and a client of its own."""
    name, _ = service.tenant()
    return name, service.client(service.key(name, "query", "converse", "ingest"))


def _say(client: Carrel, subject: str, *more: str, tags: tuple[str, ...] = ()) -> str:
    session = client.sessions.create(subject=subject, tags=tags).id
    turns = [{"role": role, "speaker": name, "content": text, "said_at": at} for role, name, text, at in SAID]
    client.sessions.append(session, turns + [{"role": "user", "content": text} for text in more])
    return session


def _contents(found: Recalled) -> list[str]:
    return [turn.content for turn in found.turns]


def test_turns_are_recalled_by_two_tenants(quick: Service) -> None:
    for name, client in (_tenant(quick), _tenant(quick)):
        session = _say(client, "ann", f"secret of {name}")
        at_once = client.sessions.recall(session, "which colour has the shelf?", neighbours=1, explain=True)
        assert {"Green.", "Which colour?"} <= {*_contents(at_once)[:3]}
        green = next(turn for turn in at_once.turns if turn.content == "Green.")
        assert (green.session_id, green.seq, green.speaker, green.said_at) == (session, 3, "Ann", "2026-03-02T09:00:20.000Z")
        assert ([turn.seq for turn in green.before], [turn.seq for turn in green.after]) == ([2], [4])
        assert {"dated", "around", "before", "sitting"} <= {*(green.legs or {})}
        wait_for_turns(client, session)
        later = client.sessions.recall(session, "The fern died.", explain=True)
        assert later.turns[0].content == "The fern died."
        assert (later.turns[0].legs or {})["pooled"] > 0
        assert (later.usage["embedding_tokens"] > 0, later.degraded) == (True, [])
        spoken = client.sessions.recall(session, "what died on 9 March?", times="narrow", asked_at="2026-03-11T00:00:00+01:00")
        assert _contents(spoken) == ["The fern died."]
        assert spoken.spans == [{"words": "9 March", "start": "2026-03-08T23:00:00.000Z", "end": "2026-03-09T23:00:00.000Z"}]
        assert {turn.role for turn in client.sessions.recall(session, "colour", roles=["assistant"]).turns} == {"assistant"}
        assert _contents(client.recall("secret", subject="ann", top_k=1)) == [f"secret of {name}"]


def test_a_subjects_token_recalls_its_own_sessions_alone(quick: Service) -> None:
    _, client = _tenant(quick)
    anns, bobs = _say(client, "ann", tags=("home",)), _say(client, "bob", "Bob's own")
    issued = client.token(subject="ann", scopes=["query"]).token
    ann = quick.client(issued)
    assert ann.recall("shelf").turns[0].session_id == ann.recall("shelf", tags=["home"]).turns[0].session_id == anns
    assert ann.recall("shelf", tags=["garden"]).turns == []
    assert ann.sessions.recall(anns, "shelf").turns
    with pytest.raises(NotFoundError):
        ann.sessions.recall(bobs, "shelf")
    with pytest.raises(PermissionDeniedError):
        ann.recall("shelf", subject="bob")
    with pytest.raises(InvalidRequestError, match="subject"):
        client.recall("shelf")
    _, other = _tenant(quick)
    for missing in (anns, "ses_none"):
        with pytest.raises(NotFoundError):
            other.sessions.recall(missing, "shelf")
    assert other.recall("shelf", subject="ann").turns == []


def test_recall_on_the_command_line(quick: Service) -> None:
    name, client = _tenant(quick)
    session = _say(client, "ann")
    found = json.loads(carrel_here("session", "recall", "shelf", "-s", session, "-t", name, "--json", env=quick.env))
    assert found["turns"][0]["content"] == SAID[0][2]
    arguments = ("recall", "which colour?", "--subject", "ann", "-t", name, "--neighbours", "1", "--explain")
    shown = carrel_here("session", *arguments, env=quick.env)
    assert f"{session} #2" in shown
    assert "> Ben: Which colour?" in shown
    assert "dated +" in shown
    refused = carrel("session", "recall", "shelf", "-t", name, env=quick.env)
    assert (refused.returncode, "--session or --subject" in refused.stderr) == (1, True)


@pytest.mark.full
def test_a_turn_is_found_by_its_meaning_within_a_second_while_documents_are_brought(service: Service) -> None:
    _, client = _tenant(service)
    text = "\n\n".join(f"Fee {n}: a map that comes back {n} days late costs {n * 10} cents. " * 8 for n in range(400))
    brought = [client.documents.create(text=f"{number} {text}", external_id=f"{number}") for number in range(8)]
    jobs = [each.job.id for each in brought if each.job is not None]
    session, seconds = client.sessions.create(subject="ann").id, []
    for number in range(20):
        began = time.monotonic()
        client.sessions.say(session, "user", f"Note {number}: the fern is thirsty.")
        wait_for_turns(client, session)
        seconds.append(time.monotonic() - began)
    assert not all(client.jobs.get(job).finished for job in jobs)  # it was busy all the time
    print(f"until it was found: {sorted(seconds)[10]:.2f} s, at most {max(seconds):.2f} s")
    assert sorted(seconds)[10] < 1.0
    for job in jobs:
        client.jobs.cancel(job)


@pytest.mark.full
def test_turns_get_their_vectors_whenever_the_worker_is_killed(quick: Service) -> None:
    _, client = _tenant(quick)
    sessions = [client.sessions.create(subject="ann").id for _ in range(4)]
    stopping = threading.Event()

    def talk(session: str) -> None:
        for first in range(0, 600, 50):
            turns = [{"role": "user", "content": f"fern {first + n} of {session}"} for n in range(50)]
            client.sessions.append(session, turns)
            if stopping.wait(0.05):
                return

    talking = [threading.Thread(target=talk, args=(session,)) for session in sessions]
    for thread in talking:
        thread.start()
    for _ in range(3):
        quick.kill("worker")
    for thread in talking:
        thread.join()
    for session in sessions:
        wait_for_turns(client, session)
        found = client.sessions.recall(session, f"fern 7 of {session}", top_k=100, explain=True)
        assert all((turn.legs or {}).get("pooled") for turn in found.turns)
