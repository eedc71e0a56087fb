"""`carrel eval` and question sets against a running service, each tenant's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from api.cli.evaluation import _sides
from carrel_client import Carrel, ConflictError, InvalidRequestError, NotFoundError, PermissionDeniedError
from config.errors import InvalidInput
from tests.support import Service, carrel

WORDS = ("lamp", "map", "globe", "shelf", "atlas", "ladder")


def fill(client: Carrel, collection: str = "default") -> None:
    for word in WORDS:
        client.documents.create(text=f"The {word} stands in room {word}.", external_id=word, collection=collection).wait()


def asked(folder: Path) -> Path:
    file = folder / "questions.jsonl"
    rows = [{"id": word, "text": f"The {word} stands in room {word}.", "relevant": [word]} for word in WORDS]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def run(service: Service, *arguments: str) -> Any:
    done = carrel(*arguments, "--json", env=service.env)
    return json.loads(done.stdout or done.stderr)


def test_questions_of_a_file_are_scored_and_two_ways_compared(quick: Service, tmp_path: Path) -> None:
    name, client = quick.tenant()
    _, other = quick.tenant()
    fill(client)
    other.documents.create(text="The lamp stands in room lamp.", external_id="not this").wait()
    file = asked(tmp_path)
    perfect = run(quick, "eval", "-q", str(file), "-t", name)
    assert perfect["questions"] == len(WORDS)
    assert perfect["sides"][0]["figures"] == dict.fromkeys(("ndcg10", "recall5", "recall10", "recall100", "mrr10"), 1.0)
    buried = {"filter": {"key": "kind", "op": "eq", "value": "none"}}
    both = run(quick, "eval", "-q", str(file), "-t", name, "-o", "{}", "-o", json.dumps(buried))
    assert [side["figures"]["ndcg10"] for side in both["sides"]] == [1.0, 0.0]
    assert both["differences"]["ndcg10"]["gain"] == -1.0
    assert both["differences"]["ndcg10"]["p"] == pytest.approx(2 / 2**6, abs=0.01)
    assert len(both["worst"]) == len(WORDS)
    shown = carrel("eval", "-q", str(file), "-t", name, "-o", "{}", "-o", json.dumps(buried), env=quick.env).stdout
    assert "-1.0000" in shown
    assert "relevant: lamp; found: nothing" in shown


def test_a_dataset_leaves_nothing_behind(quick: Service, tmp_path: Path) -> None:
    name, client = quick.tenant()
    groups = {word: "even" if place % 2 else "odd" for place, word in enumerate(WORDS)}
    corpus = [{"id": word, "title": word, "text": f"The {word} of {groups[word]}.", "group": groups[word]} for word in WORDS]
    queries = [{"id": word, "text": f"{word}\n\nThe {word} of {groups[word]}.", "group": groups[word]} for word in WORDS]
    for file, rows in (("corpus.jsonl", corpus), ("queries.jsonl", queries)):
        (tmp_path / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "qrels.tsv").write_text("".join(f"{word}\t{word}\t1\n" for word in WORDS))
    fill(client)
    before = client.query("The lamp stands in room lamp.", top_k=100).passages
    result = run(quick, "eval", "-d", str(tmp_path), "--profiles", "standard,precise", "-t", name)
    assert [side["profile"] for side in result["sides"]] == ["standard", "precise"]
    assert [side["figures"]["mrr10"] for side in result["sides"]] == [1.0, 1.0]
    assert result["differences"]["ndcg10"] == {"gain": 0.0, "p": 1.0}
    assert [collection.name for collection in client.collections.list()] == ["default"]
    assert client.query("The lamp stands in room lamp.", top_k=100).passages == before
    (tmp_path / "queries.jsonl").write_text(json.dumps({**queries[0], "group": "nobody's"}) + "\n")
    refused = run(quick, "eval", "-d", str(tmp_path), "-t", name)
    assert "nobody's" in refused["error"]["detail"]
    assert [collection.name for collection in client.collections.list()] == ["default"]


@pytest.mark.parametrize(
    ("options", "profiles", "said"),
    [
        (["{"], None, "no JSON"),
        (['{"top_k": 5}'], None, "top_k"),
        (["[]"], None, "an object"),
        (["{}", "{}", "{}"], None, "two sides"),
        (["{}"], "a,b,c", "two sides"),
    ],
)
def test_what_cannot_be_compared_is_refused(options: list[str], profiles: str | None, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        _sides(options, profiles)


def test_sides_are_options_profiles_or_both() -> None:
    one, two = {"rerank": True}, {"rerank": False}
    given = [json.dumps(one), json.dumps(two)]
    assert [(side.options, side.profile) for side in _sides([], None)] == [({}, None)]
    assert [(side.options, side.profile) for side in _sides(given, None)] == [(one, None), (two, None)]
    assert [(side.options, side.profile) for side in _sides([], "a, b")] == [({}, "a"), ({}, "b")]
    assert [(side.options, side.profile) for side in _sides(given, "a,b")] == [(one, "a"), (two, "b")]
    assert [(side.options, side.profile) for side in _sides(given[:1], "a,b")] == [(one, "a"), (one, "b")]


def test_question_sets_are_each_tenants_own(quick: Service, tmp_path: Path) -> None:
    name, client = quick.tenant()
    _, other = quick.tenant()
    fill(client)
    made = run(quick, "questions", "add", "rooms", str(asked(tmp_path)), "-t", name)
    assert (made["name"], made["collection"], made["count"]) == ("rooms", "default", len(WORDS))
    assert [each["name"] for each in run(quick, "questions", "list", "-t", name)] == ["rooms"]
    assert run(quick, "eval", "-q", "rooms", "-t", name)["sides"][0]["figures"]["ndcg10"] == 1.0
    full = client.question_sets.get("rooms")
    assert full.questions is not None
    assert full.questions[0] == {"text": "The lamp stands in room lamp.", "relevant": {"lamp": 1}}
    questions = [{"text": "where?", "relevant": {"lamp": 1}}]
    with pytest.raises(ConflictError):
        client.question_sets.create(name="rooms", questions=questions)
    with pytest.raises(InvalidRequestError):
        client.question_sets.create(name="many", questions=questions * 1001)
    assert list(other.question_sets.list()) == []
    elsewhere = quick.client(quick.key(name, collections=["elsewhere"]))
    for stranger in (other, elsewhere):
        for method in ("GET", "DELETE"):
            with pytest.raises(NotFoundError):
                stranger._transport.call(method, f"/v1/question-sets/{made['id']}")
    labelled = quick.client(quick.key(name, labels=["red"]))
    with pytest.raises(PermissionDeniedError):
        list(labelled.question_sets.list())
    assert run(quick, "questions", "delete", "rooms", "-t", name)["id"] == made["id"]
    assert list(client.question_sets.list()) == []


def test_a_collection_goes_when_it_is_empty_and_with_it_what_names_it(quick: Service, tmp_path: Path) -> None:
    name, client = quick.tenant()
    _, other = quick.tenant()
    for each in (client, other):
        each.collections.create(name="tools")
        fill(each, "tools")
        each.question_sets.create(name="q", collection="tools", questions=[{"text": "where?", "relevant": {"lamp": 1}}])
    with pytest.raises(ConflictError):
        client.collections.delete("tools")
    deleted = run(quick, "collection", "delete", "tools", "--documents", "-t", name)
    assert deleted["name"] == "tools"
    assert [each.name for each in client.collections.list()] == []
    assert list(client.question_sets.list()) == []
    assert [job.id for job in client.jobs.list()] == []
    assert [(each.name, each.documents) for each in other.collections.list()] == [("tools", len(WORDS))]
    assert [each.name for each in other.question_sets.list()] == ["q"]
    with pytest.raises(NotFoundError):
        client.collections.delete("tools")
    client.collections.create(name="tools")
    assert client.query("lamp", collections=["tools"]).passages == []
