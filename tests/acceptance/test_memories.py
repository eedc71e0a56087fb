"""Memories against a running service: by client and command, by keys and tokens of subjects, and with a language model."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

from carrel_client import Carrel, InvalidRequestError, NotFoundError, PermissionDeniedError
from tests.support import Service, carrel_here


def keys(service: Service) -> tuple[str, Carrel]:
    name, _ = service.tenant()
    return name, service.client(service.key(name, "query", "converse", "manage"))


def test_facts_are_added_found_changed_and_each_tenants_own(quick: Service) -> None:
    _, client = keys(quick)
    _, other = keys(quick)
    added = client.memories.add("Ann lives in Berlin.", subject="ann", key="home_city", tags=["place"], idempotency_key="one")
    assert (
        client.memories.add("Ann lives in Berlin.", subject="ann", key="home_city", tags=["place"], idempotency_key="one")
        == added
    )
    first = added.data[0].memory
    assert (added.data[0].outcome, first.version, first.confirmations, added.tokens > 0) == ("added", 1, 0, True)
    assert client.memories.add("Ann lives in Berlin.", subject="ann").data[0].outcome == "confirmed"
    client.memories.add(memories=[{"text": "Ann grows tomatoes."}, {"text": "Ann owns a cello."}], subject="ann")
    other.memories.add("Eve lives in Rome.", subject="ann")
    [moved] = client.memories.add("Ann lives in Oslo.", subject="ann", key="home_city").data
    assert moved.superseded == [first.id]
    found = client.memories.search("tomatoes", subject="ann", limit=2)
    assert found.degraded == []
    assert found.data[0].memory.text == "Ann grows tomatoes."
    assert [each.text for each in client.memories.list(subject="ann", page_size=1)] == [
        *("Ann grows tomatoes.", "Ann owns a cello.", "Ann lives in Oslo."),
    ]
    assert client.memories.get(first.id).superseded_by == moved.memory.id
    assert client.memories.get(first.id, as_of=first.recorded_at).valid_to is None
    changed = client.memories.update(
        moved.memory.id, metadata={"by": "ann"}, valid_to="2099-01-01T00:00:00Z", reason="she said"
    )
    assert (changed.version, changed.metadata, changed.valid_to) == (2, {"by": "ann"}, "2099-01-01T00:00:00.000Z")
    assert client.memories.update(moved.memory.id, valid_to=None).valid_to is None
    history = list(client.memories.history(moved.memory.id, page_size=1))
    assert [(each.version, each.action, each.reason) for each in history] == [
        (1, "added", None),
        (2, "updated", "she said"),
        (3, "updated", None),
    ]
    assert [each.text for each in other.memories.list()] == ["Eve lives in Rome."]
    for wrong in (other.memories.get, other.memories.delete, lambda it: list(other.memories.history(it))):
        with pytest.raises(NotFoundError):
            wrong(first.id)
    types = [event.type for event in client.events.list(type="memory.")]
    assert types == ["memory.added", "memory.confirmed", *["memory.added"] * 3, "memory.superseded", *["memory.updated"] * 2]


def test_a_repetition_is_not_told_of_what_was_deleted_since_nor_of_a_session_that_was_erased(quick: Service) -> None:
    _, client = keys(quick)
    _, other = keys(quick)
    chat = client.sessions.create(subject="ann").id

    def add(of: Carrel, text: str, key: str, **more: str) -> str:
        return of.memories.add(text, subject="ann", idempotency_key=key, **more).data[0].memory.id

    gone, kept, theirs = (
        add(client, "Ann fears moths.", "1"),
        add(client, "Ann sings.", "2"),
        add(other, "Ann fears moths.", "1"),
    )
    add(client, "Ann is tired.", "3", session_id=chat)
    client.memories.delete(gone)
    with pytest.raises(NotFoundError, match="deleted since"):
        add(client, "Ann fears moths.", "1")
    assert (add(client, "Ann sings.", "2"), add(other, "Ann fears moths.", "1")) == (kept, theirs)
    assert client.erasures.session(chat).before["kept_results"] == 2  # of making it, and of what was kept with it
    assert [each.text for each in client.memories.list(subject="ann")] == ["Ann sings."]


def test_a_subject_reaches_its_own_and_a_reader_changes_nothing(quick: Service) -> None:
    name, client = keys(quick)
    anns = client.memories.add("Ann sings.", subject="ann").data[0].memory
    client.memories.add("Bob sings.", subject="bob")
    token = client.token(subject="bob", scopes=["query", "converse"]).token
    bob = quick.client(token)
    assert [each.text for each in bob.memories.list()] == ["Bob sings."]
    assert [each.memory.text for each in bob.memories.search("sings").data] == ["Bob sings."]
    assert bob.memories.add("Bob dances.").data[0].memory.subject == "bob"
    for wrong in (
        lambda: bob.memories.get(anns.id),
        lambda: bob.memories.update(anns.id, text="x"),
        lambda: bob.memories.delete(anns.id),
        lambda: list(bob.memories.history(anns.id)),
    ):
        with pytest.raises(NotFoundError):
            wrong()
    for refused in (
        lambda: bob.memories.add("Ann is rich.", subject="ann"),
        lambda: bob.memories.search("sings", subject="ann"),
        lambda: list(bob.memories.list(subject="ann")),
        lambda: quick.client(quick.key(name, "query")).memories.add("Ann is rich.", subject="ann"),
    ):
        with pytest.raises(PermissionDeniedError):
            refused()
    with pytest.raises(InvalidRequestError, match="subject"):
        client.memories.add("Whose?")


def test_what_is_not_valid_is_refused(quick: Service) -> None:
    _, client = keys(quick)
    for wrong in (
        {},
        {"text": " "},
        {"text": "x" * 2001},
        {"text": "x", "sources": [{"seq": 1}]},
        {"text": "x", "sources": [{"session_id": "ses_x", "document_id": "doc_x"}]},
        {"text": "x", "valid_from": "2026-01-02T00:00:00Z", "valid_to": "2026-01-01T00:00:00Z"},
        {"text": "x", "valid_to": "9999-12-31T23:59:59-12:00"},  # in no year that could be shown
        {"text": "x", "metadata": {"a": "x" * 5000}},
        {"text": "x", "messages": [{"role": "user", "content": "x"}]},
        {"messages": [{"role": "user", "content": "x"}]},  # there is no language model
    ):
        with pytest.raises(InvalidRequestError):
            client.memories.add(subject="ann", **wrong)  # type: ignore[arg-type]
    with pytest.raises(NotFoundError):
        client.memories.add("x", subject="ann", sources=[{"document_id": "doc_x"}])
    messages = [{"role": "user", "content": "I moved to Oslo"}, {"role": "assistant", "content": "Nice!"}]
    [kept] = client.memories.add(subject="ann", messages=messages, extract="verbatim").data
    assert kept.memory.text == "I moved to Oslo"


def test_the_command_teaches_and_does_the_same(quick: Service) -> None:
    name, client = keys(quick)

    def run(*arguments: str) -> str:
        return carrel_here("memory", *arguments, "--tenant", name, env=quick.env)

    added = json.loads(run("add", "Ann lives in Canarytown.", "-s", "ann", "--key", "home", "--json"))
    first = added["data"][0]["memory"]["id"]
    assert f"instead of {first}" in run("add", "Ann lives in Oslo.", "-s", "ann", "--key", "home")
    assert "Oslo" in run("search", "where does she live?", "-s", "ann")
    assert "Canarytown" not in run("list", "-s", "ann")
    assert "Canarytown" in run("list", "-s", "ann", "--everything")
    assert json.loads(run("update", first, "--text", "Ann lived in Canarytown.", "--reason", "past", "--json"))["version"] == 3
    assert "past" in run("history", first)
    assert json.loads(run("show", first, "--json"))["text"] == "Ann lived in Canarytown."
    assert run("delete", first).strip() == f"{first} is deleted."
    with pytest.raises(NotFoundError):
        client.memories.get(first)
    with closing(sqlite3.connect(quick.data_dir / "carrel.db")) as connection:
        assert connection.execute("SELECT count(*) FROM memory_versions WHERE text LIKE '%Canarytown%'").fetchone() == (0,)
