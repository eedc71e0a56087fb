"""Feedback and tuning against a running service: each tenant's own, gone with its document, applied for a gain only."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

from api.cli.evaluation import bars
from api.cli.tune import Outcome, Tuner, _judged
from carrel_client import (
    Carrel,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
)
from rag.evaluation import fitting
from tests.support import PATIENCE, Service, carrel, wait_for

TOPICS = ("lamp", "map", "globe", "shelf", "atlas", "ladder", "desk", "chair", "clock", "bell", "stamp", "stool")
WAYS = ("where is the {}", "find the {}", "the {} please", "about the {}", "which {}", "show the {}", "a {}?")


def test_feedback_is_kept_listed_and_each_tenants_own(quick: Service) -> None:
    name, client = quick.tenant()
    _, other = quick.tenant()
    for each in (client, other):
        each.documents.create(text="The lamp stands here.", external_id="lamp", labels=["red"]).wait()
    passage = client.query("lamp").passages[0]
    first = client.feedback.give(query="where?", passage_id=passage.id, useful=True, idempotency_key="one")
    assert client.feedback.give(query="where?", passage_id=passage.id, useful=True, idempotency_key="one") == first
    second = client.feedback.give(query="who?", document_id=passage.document_id, rating=2, comment="no", subject="ann")
    assert list(client.feedback.list(page_size=1)) == [first, second]
    assert (second.external_id, second.collection, second.rating, second.subject) == ("lamp", "default", 2, "ann")
    assert list(other.feedback.list()) == []
    for subject, seen in (("ann", [second]), ("bob", [])):
        token = client.token(subject=subject, scopes=["manage"]).token
        assert list(quick.client(token).feedback.list()) == seen
    bounded = [quick.client(quick.key(name, collections=["x"])), quick.client(quick.key(name, labels=["blue"]))]
    for stranger in (other, *bounded):
        for target in ({"passage_id": passage.id}, {"document_id": passage.document_id}):
            with pytest.raises(NotFoundError):
                stranger.feedback.give(query="where?", useful=True, **target)
    for stranger in bounded:
        with pytest.raises(PermissionDeniedError):
            list(stranger.feedback.list())
    reader = quick.client(quick.key(name, "query"))
    reader.feedback.give(query="where?", passage_id=passage.id, useful=False)
    with pytest.raises(PermissionDeniedError):
        list(reader.feedback.list())
    for wrong in (
        {},
        {"useful": True},
        {"passage_id": passage.id},
        {"passage_id": passage.id, "document_id": "x", "rating": 1},
    ):
        with pytest.raises(InvalidRequestError):
            client.feedback.give(query="where?", **wrong)  # type: ignore[arg-type]
    given = carrel("feedback", "give", "how?", "--passage", passage.id, "--useful", "-t", name, "--json", env=quick.env)
    assert json.loads(given.stdout)["useful"] is True
    listed = carrel("feedback", "list", "-t", name, env=quick.env).stdout
    assert [word for word in ("where?", "who?", "how?", "lamp") if word not in listed] == []


def test_feedback_goes_with_its_document(quick: Service) -> None:
    rooms = {who: quick.tenant()[1] for who in ("ash", "elm")}
    documents = {}
    for who, client in rooms.items():
        submitted = client.documents.create(text="The lamp stands here.", external_id="lamp")
        submitted.wait()
        documents[who] = submitted.document.id
        client.feedback.give(query=f"canaryquery{who}", document_id=documents[who], useful=True, comment=f"canarycomment{who}")

    def held(word: str) -> int:
        with closing(sqlite3.connect(quick.data_dir / "carrel.db")) as connection:
            rows = connection.execute("SELECT * FROM feedback").fetchall()
        return sum(word in str(row) for row in rows)

    assert held("canaryqueryash") == held("canarycommentelm") == 1
    rooms["ash"].documents.delete(documents["ash"])
    assert list(rooms["ash"].feedback.list()) == []
    wait_for(lambda: held("canaryqueryash") + held("canarycommentash") == 0, what="the feedback to go", timeout_s=5 * PATIENCE)
    assert len(list(rooms["elm"].feedback.list())) == held("canaryqueryelm") == 1


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A smaller search, for the time of the test."""
    for name, values in {
        "DENSE_WEIGHTS": (0.5,),
        "RECENCY_WEIGHTS": (0.1,),
        "HALF_LIVES": (30.0,),
        "BOOST_WEIGHTS": (-0.5, 0.5),
        "PASSES": 1,
    }.items():
        monkeypatch.setattr(fitting, name, values)


def judged_collection(client: Carrel, *, policies_answer: bool) -> None:
    """Two documents of each topic: a draft, which is nearer to the questions, and a policy."""
    for topic in TOPICS:
        for kind, text in (("draft", f"where is, find, show the {topic} please"), ("policy", f"The {topic} rules.")):
            attributes = {"kind": kind}
            client.documents.create(text=text, external_id=f"{topic} {kind}", attributes=attributes).wait()
    answers = {way.format(topic): f"{topic} policy" for topic in TOPICS for way in WAYS}
    if not policies_answer:  # what is first as it is
        answers = {text: client.query(text, top_k=1).passages[0].external_id for text in answers}
    questions = [{"text": text, "relevant": {answer: 1}} for text, answer in answers.items()]
    client.question_sets.create(name="all", questions=questions)


def tuned(client: Carrel, *, apply: bool = True) -> Outcome:
    with bars(quiet=True) as progress:
        return Tuner(client, "default", progress).run(_judged(client, "default", []), apply=apply)


@pytest.mark.usefixtures("few_steps")
def test_a_clear_gain_is_found_applied_and_rolled_back_to_the_same_answers(quick: Service) -> None:
    name, client = quick.tenant()
    _, other = quick.tenant()
    judged_collection(client, policies_answer=True)
    other.documents.create(text="find the lamp please", external_id="lamp draft", attributes={"kind": "draft"}).wait()
    before, theirs = client.query("where is the lamp", top_k=50).passages, other.query("where is the lamp").passages
    only_said = tuned(client, apply=False)
    assert (only_said.significant, only_said.applied) == (True, None), only_said
    assert client.query("where is the lamp", top_k=50).passages == before
    outcome = tuned(client)
    assert outcome.applied == 1
    assert outcome.held_out >= 30
    assert outcome.ndcg10_before is not None
    assert outcome.ndcg10_after is not None
    assert outcome.ndcg10_after > outcome.ndcg10_before + 0.1
    after = client.query("where is the lamp", top_k=50).passages
    assert after[0].external_id == "lamp policy"
    asked = client.query("where is the lamp", top_k=50, tuned=False, **outcome.parameters).passages  # type: ignore[typeddict-item,arg-type]
    assert asked == after
    assert client.query("where is the lamp", top_k=50, tuned=False).passages == before
    assert other.query("where is the lamp").passages == theirs
    [version] = client.collections.tuning("default").versions
    assert version.figures["questions"] == outcome.held_out
    with pytest.raises(ConflictError):
        client.collections.tune("default", parameters={}, replaces=0)
    second = client.collections.tune("default", parameters={"dense_weight": 0.2}, replaces=1)
    assert second.active == 2
    rolled = carrel("tune", "default", "--rollback", "-t", name, "--json", env=quick.env)
    assert json.loads(rolled.stdout) == {"collection": "default", "rolled_back": 2, "active": 1}
    assert client.query("where is the lamp", top_k=50).passages == after
    with pytest.raises(ConflictError):
        client.collections.roll_back("default", version=2)
    assert client.collections.roll_back("default", version=1).active == 0
    assert client.query("where is the lamp", top_k=50).passages == before
    assert [(each.version, each.rolled_back_at is not None) for each in client.collections.tuning("default").versions] == [
        (2, True),
        (1, True),
    ]
    assert other.collections.tuning("default").versions == []


@pytest.mark.full
@pytest.mark.usefixtures("few_steps")
def test_where_nothing_is_gained_nothing_is_applied(quick: Service) -> None:
    _, client = quick.tenant()
    few = tuned_few(quick)
    assert few.applied is None
    assert few.why_not is not None
    assert "at least 30" in few.why_not
    judged_collection(client, policies_answer=False)
    outcome = tuned(client)
    assert (outcome.applied, outcome.significant) == (None, False)
    assert outcome.why_not
    assert client.collections.tuning("default").versions == []


def tuned_few(quick: Service) -> Outcome:
    """With a handful of judgments, all of them feedback."""
    _, client = quick.tenant()
    client.documents.create(text="The lamp stands here.", external_id="lamp").wait()
    document = client.query("lamp").passages[0].document_id
    for number in range(8):
        client.feedback.give(query=f"lamp {number}?", document_id=document, useful=True)
    return tuned(client)
