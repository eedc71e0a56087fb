"""What belongs to a session and ends with it, over HTTP: files of turns, budgets, and a subject that is erased."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from carrel_client import BudgetExhaustedError, Carrel, NotFoundError
from tests.support import Service, wait_for_turns


@dataclass(frozen=True)
class Talk:
    """A subject's session with something of every kind."""

    client: Carrel
    subject: str
    session: str
    document: str
    memory: str
    traces: tuple[str, ...]

    def seen(self) -> tuple[object, ...]:
        """All that can be read of it."""
        client, own = self.client, {"session": self.session, "collections": []}
        return (
            client.sessions.get(self.session).turns,
            [(turn.content, turn.files) for turn in client.sessions.turns(self.session)],
            [document.id for document in client.session_documents.list(self.session)],
            client.session_documents.text(self.session, self.document),
            [pin.seq for pin in client.pins.list(self.session)],
            [turn.seq for turn in client.sessions.recall(self.session, "fern").turns],
            [passage.document_id for passage in client.query("fern", **own).passages],
            client.context(session=self.session, message="And the fern?", max_tokens=900).messages,
            client.memories.get(self.memory).text,
            [client.traces.get(trace).id for trace in self.traces],
        )

    def readings(self) -> list[object]:
        """Each way to something of it alone."""
        client, own = self.client, {"session": self.session, "collections": []}
        return [
            lambda: client.sessions.get(self.session),
            lambda: list(client.sessions.turns(self.session)),
            lambda: list(client.session_documents.list(self.session)),
            lambda: client.session_documents.text(self.session, self.document),
            lambda: client.pins.list(self.session),
            lambda: client.sessions.recall(self.session, "fern"),
            lambda: client.query("fern", **own),
            lambda: client.context(session=self.session, message="And the fern?", max_tokens=900),
            lambda: list(client.exports.session(self.session)),
            lambda: client.memories.get(self.memory),
            *(lambda trace=trace: client.traces.get(trace) for trace in self.traces),
        ]

    def found(self) -> list[object]:
        """What searches and lists find of the subject."""
        client = self.client
        return [
            *client.sessions.list(subject=self.subject),
            *client.recall("fern", subject=self.subject).turns,
            *client.memories.search("fern", subject=self.subject).data,
            *client.memories.list(subject=self.subject),
            *(trace for trace in client.traces.list() if trace.subject == self.subject),
        ]


def _talk(client: Carrel, subject: str) -> Talk:
    session = client.sessions.create(subject=subject, tags=["plants"]).id
    paper = client.session_documents.create(session, text=f"The fern of {subject} likes shade.", external_id="paper")
    paper.wait()
    turns = [{"role": "user", "content": f"{n}: the fern of {subject}", "files": [paper.document.id]} for n in range(6)]
    client.sessions.append(session, turns)
    client.pins.create(session, seq=2)
    client.sessions.recall(session, "fern")
    memory = client.memories.add(f"{subject} owns a fern.", subject=subject).data[0].memory.id
    asked = client.query("which shade?", session=session, collections=[])
    packed = client.context(session=session, message="Which shade?", max_tokens=900)
    traces = tuple(name for name in (asked.trace_id, packed.trace_id) if name is not None)
    assert len(traces) == 2
    for name in traces:
        client.traces.get(name)
    wait_for_turns(client, session)
    return Talk(client, subject, session, paper.document.id, memory, traces)


def test_an_erased_subject_is_in_no_answer_and_others_are_as_before(quick: Service) -> None:
    (_, client), (_, stranger) = quick.tenant(), quick.tenant()
    ann, bob, other = _talk(client, "ann"), _talk(client, "bob"), _talk(stranger, "ann")
    before = bob.seen(), other.seen()
    assert len(ann.found()) > 8
    erasure = client.erasures.subject("ann")
    assert ann.found() == []
    for read in ann.readings():
        with pytest.raises(NotFoundError):
            read()  # type: ignore[operator]
    with pytest.raises(NotFoundError):
        stranger.erasures.get(erasure.id)
    receipt = client.erasures.wait(erasure.id)
    counted = {name for name, count in receipt.before.items() if count}
    assert counted >= {"sessions", "turns", "documents", "points", "blobs", "memory_versions", "traces", "session_pins"}
    assert not any(receipt.after.values())
    assert ann.found() == []
    for read in ann.readings():
        with pytest.raises(NotFoundError):
            read()  # type: ignore[operator]
    assert (bob.seen(), other.seen()) == before


def test_turns_name_documents_of_their_session_and_no_others(quick: Service) -> None:
    (_, client), (_, stranger) = quick.tenant(), quick.tenant()
    mine, elsewhere = (client.sessions.create(subject="ann").id for _ in range(2))
    paper = client.session_documents.create(mine, text="The lease ends in May.", external_id="lease").document.id
    foreign = stranger.sessions.create(subject="ann").id
    theirs = stranger.session_documents.create(foreign, text="Another lease.", external_id="lease").document.id
    said = client.sessions.say(mine, "user", "When does it end?", files=[paper])
    assert client.sessions.turn(mine, said.id).files == [paper]
    for session, files in ((elsewhere, [paper]), (mine, [theirs]), (mine, [paper, "doc_none"]), (foreign, [theirs])):
        with pytest.raises(NotFoundError) as refused:
            client.sessions.append(
                session, [{"role": "user", "content": "first"}, {"role": "user", "content": "x", "files": files}]
            )
        assert refused.value.field == ("session_id" if session == foreign else "files")
    assert [len(list(client.sessions.turns(each))) for each in (mine, elsewhere)] == [1, 0]


def test_a_session_spends_no_more_than_its_budget_whatever_is_asked_in_it(quick: Service) -> None:
    for _ in range(2):  # tenants
        _, client = quick.tenant()
        session = client.sessions.create(subject="ann").id
        client.session_documents.create(session, text="The lease ends in May.", external_id="lease").wait()
        client.query("When does the lease end?", session=session, collections=[])
        spent = client.sessions.get(session).spent_tokens
        assert spent > 0
        client.sessions.recall(session, "Who said something of the lease?")
        more = client.sessions.get(session).spent_tokens
        assert more > spent
        client.sessions.update(session, budget_tokens=more)
        client.sessions.say(session, "user", "It is found by its words.")
        with pytest.raises(BudgetExhaustedError) as refused:
            client.query("Until when is there a lease?", session=session, collections=[])
        assert refused.value.field == "budget_tokens"
        found = client.sessions.recall(session, "which words are found?")
        assert found.degraded == ["dense"]
        assert [turn.content for turn in found.turns] == ["It is found by its words."]
        assert client.sessions.get(session).spent_tokens == more
