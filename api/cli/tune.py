"""`carrel tune`: fits a collection's fusion and boosts to one part of its judged questions, and measures on the other."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import islice
from typing import Annotated, Any

import typer
from rich.progress import Progress

from api.cli.common import AsJson, TenantOption, out, print_json, tenant_client
from api.cli.evaluation import bars, questions_of
from api.evaluating import ask, each
from carrel_client import Carrel
from config.errors import InvalidInput
from config.settings import Settings
from rag.evaluation.fitting import Attribute, Parameters, fit, telling
from rag.evaluation.judgments import Vote, judged, split, vote_of
from rag.evaluation.metrics import score
from rag.evaluation.questions import Judged

MAX_FEEDBACK, MAX_SETS = 100_000, 100
MAX_FITTED, MAX_HELD_OUT = 300, 1_000  # questions: the search asks each of the first some sixty times
LEAST, CHANCE = 30, 0.05
DEPTH = 40  # passages of each question
LOOKED_AT = 10  # of which attributes are counted


@dataclass(frozen=True, slots=True)
class Outcome:
    collection: str
    fitted: int  #: questions
    held_out: int
    parameters: dict[str, Any] | None = None  #: None: nothing was found that is better on the questions fitted to
    ndcg10_before: float | None = None  #: on those held out, as the collection is now
    ndcg10_after: float | None = None
    p: float | None = None
    significant: bool = False
    applied: int | None = None  #: version
    why_not: str | None = None


def register(app: typer.Typer) -> None:
    app.command("tune")(tune)


def tune(
    collection: Annotated[str, typer.Argument(help="The collection.")],
    questions: Annotated[
        list[str] | None, typer.Option("--questions", "-q", help="A file or stored set; repeat it. Else all stored sets.")
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Apply what is significantly better.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to what was active before.")] = False,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Fit fusion weights and boosts to judged questions: feedback and stored sets.

    Half of the questions is fitted to; the gain is measured on the other half, of at least 30 questions, and is applied only
    if chance alone would do as much in less than 5 of 100 cases.

    Example: carrel tune default --apply --tenant acme
    """
    if apply and rollback:
        raise InvalidInput("Give either --apply or --rollback.", field="apply")
    with tenant_client(Settings(), tenant, ["query", "ingest", "manage"]) as client:
        if rollback:
            _roll_back(client, collection, as_json=as_json)
            return
        with bars(quiet=as_json) as progress:
            outcome = Tuner(client, collection, progress).run(_judged(client, collection, questions or []), apply=apply)
    print_json(outcome) if as_json else _show(outcome)


def _roll_back(client: Carrel, collection: str, *, as_json: bool) -> None:
    active = client.collections.tuning(collection).active
    if not active:
        raise InvalidInput(f"The collection {collection!r} is not tuned.", field="rollback")
    after = client.collections.roll_back(collection, version=active)
    if as_json:
        print_json({"collection": collection, "rolled_back": active, "active": after.active})
    else:
        out.print(f"Rolled back version {active}; active: {after.active or 'none'}.")


def _judged(client: Carrel, collection: str, named: list[str]) -> list[Judged]:
    """Of the feedback, and of the sets: all that are stored, or those that are named."""
    votes: list[Vote] = [
        vote_of(given.query, given.external_id, useful=given.useful, rating=given.rating, subject=given.subject)
        for given in islice(client.feedback.list(collection=collection), MAX_FEEDBACK)
    ]
    sets = named or [each.id for each in islice(client.question_sets.list(collection=collection), MAX_SETS)]
    return judged(votes, [question for name in sets for question in questions_of(client, name, collection)])


class Tuner:
    def __init__(self, client: Carrel, collection: str, progress: Progress) -> None:
        self._client, self._collection, self._progress = client, collection, progress

    def run(self, questions: list[Judged], *, apply: bool) -> Outcome:
        fitted, held_out = split(questions)
        fitted, held_out = fitted[:MAX_FITTED], held_out[:MAX_HELD_OUT]
        sizes = Outcome(self._collection, len(fitted), len(held_out))
        if not fitted or len(held_out) < LEAST:
            why = f"{len(held_out)} questions are held out; at least {LEAST} are needed to tell a gain from chance"
            return _with(sizes, why_not=why)
        active = self._client.collections.tuning(self._collection).active
        before = self._value(fitted, {})
        found = fit(lambda tried: self._value(fitted, _explicit(tried)), self._attributes(fitted))
        if self._value(fitted, _explicit(found)) <= before + 1e-9:
            return _with(sizes, why_not="nothing that was tried is better on the questions fitted to")
        return self._held_out(sizes, held_out, found, active, apply=apply)

    def _held_out(self, sizes: Outcome, held_out: list[Judged], found: Parameters, active: int, *, apply: bool) -> Outcome:
        from rag.evaluation.comparison import evaluate

        sides = [self._asked(held_out, {}), self._asked(held_out, _explicit(found))]
        result = evaluate(held_out, sides, worst=0)
        before, after = (side["ndcg10"] for side in result.sides)
        difference = result.differences["ndcg10"]
        significant = difference.gain > 0 and difference.p < CHANCE
        figures = {"ndcg10_before": before, "ndcg10_after": after, "p": difference.p}
        outcome = _with(sizes, parameters=found.as_fields(), significant=significant, **figures)
        if not significant:
            return _with(outcome, why_not="on the questions held out the gain may be chance")
        if not apply:
            return _with(outcome, why_not="--apply was not given")
        tuned = self._client.collections.tune(
            self._collection,
            parameters=found.as_fields(),
            replaces=active,
            figures={"questions": len(held_out), **{name: min(1.0, max(0.0, value)) for name, value in figures.items()}},
        )
        return _with(outcome, applied=tuned.active)

    def _value(self, questions: list[Judged], options: dict[str, Any]) -> float:
        rankings = self._asked(questions, options)
        return score(rankings, {question.id: question.relevant for question in questions})["ndcg10"]

    def _asked(self, questions: list[Judged], options: dict[str, Any]) -> dict[str, list[str]]:
        bar = self._progress.add_task("ask", total=len(questions))
        place = (self._client, self._collection)
        try:
            return ask(lambda _: place, questions, options, lambda: self._progress.advance(bar), top_k=DEPTH)
        finally:
            self._progress.remove_task(bar)

    def _attributes(self, questions: list[Judged]) -> list[Attribute]:
        def seen(question: Judged) -> list[tuple[dict[str, Any], bool]]:
            found = self._client.query(question.text, top_k=LOOKED_AT, collections=[self._collection], tuned=False)
            return [(passage.attributes, passage.external_id in question.relevant) for passage in found.passages]

        return telling(one for passages in each(seen, questions, 8) for one in passages)


def _explicit(parameters: Parameters) -> dict[str, Any]:
    """Asked with these and nothing that the collection is tuned to, as it would be asked if it were tuned to these."""
    return {**parameters.as_fields(), "tuned": False}


def _with(outcome: Outcome, **fields: Any) -> Outcome:
    return Outcome(**{**asdict(outcome), **fields})


def _show(outcome: Outcome) -> None:
    out.print(f"{outcome.fitted} questions to fit to, {outcome.held_out} held out.")
    if outcome.parameters is not None:
        out.print(f"Found: {outcome.parameters}")
        out.print(f"nDCG@10 held out: {outcome.ndcg10_before:.4f} → {outcome.ndcg10_after:.4f}, p = {outcome.p:.4f}.")
    if outcome.applied is None:
        out.print(f"Nothing is applied: {outcome.why_not}.")
    else:
        out.print(f"Applied as version {outcome.applied}. `carrel tune {outcome.collection} --rollback` takes it back.")
