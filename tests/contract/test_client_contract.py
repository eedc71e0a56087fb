"""The Python client and the service know the same: operations, what is sent to each, and every field of what is answered."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import httpx2
import pytest
from pydantic import BaseModel

from api.app import create_app
from api.schemas.traces import ReportOut, SkippedOut
from api.wiring.api import ApiServices
from carrel_client import Job, QuestionSet
from carrel_client.models import Model
from tests.client_calls import CALLS
from tests.looped import WORLDS, client_over

#: Of other clients than ours.
FOREIGN = ("/v1/vector_stores", "/v1/files", "/v1/embeddings", "/v1/models", "/mcp", "/retrieval")

#: Models whose schema is not named after them.
SCHEMAS = {
    "AddedMemories": "AddedOut",
    "Appended": "AppendOut",
    "AppendedTurn": "AppendedOut",
    "BudgetLimit": "BoundOut",
    "CacheHoldings": "CacheOut",
    "FoundMemories": "MemorySearchOut",
    "FoundMemory": "MemoryHitOut",
    "ImportedTenant": "ImportedOut",
    "Limit": "LimitOut",
    "NearDuplicate": "NearOut",
    "NoisyTenant": "NoisyOut",
    "PlacedMemory": "PlacedOut",
    "QueryResult": "QueryOut",
    "QuestionSet": "FullQuestionSetOut",
    "Recalled": "RecallOut",
    "RecentSums": "SumsOut",
    "SaidTurn": "SaidOut",
    "ShownMemory": "MemoryPlacedOut",
    "ShownRecap": "RecapPlacedOut",
    "ShownTurn": "TurnPlacedOut",
    "TenantDeletion": "DeletionOut",
    "TenantPassages": "LookedOut",
    "Token": "SubjectTokenOut",
    "Trace": "FullTraceOut",
    "UsageAmounts": "UsageAmounts",
}
#: Models of lines of streams, which no schema of the document tells: what the service makes them of.
LINES: dict[str, type[BaseModel]] = {"ReplayReport": ReportOut, "SkippedReplay": SkippedOut}
#: The service makes these of no model; tests of bringing many documents read their fields.
UNDECLARED = {"BulkResult"}
#: Fields by another name: Python's for what is JSON's, by model.
RENAMED = {"Appended": {"turns": "data"}}

#: Schemas that are no model of the client, each with the reason.
WITHOUT_MODEL = {
    "AdminSearchOut": "its `results` are returned",
    "BudgetsOut": "its `data` are returned",
    "DeletedMemoryOut": "nothing is returned: it is gone",
    "DeletedOut": "its `job` is returned",
    "ImportOut": "its `data` are returned",
    "NoisiestOut": "its `data` are returned",
    "PinsOut": "its `items` are returned",
    "PlansOut": "its `data` are returned",
    "ProfilesOut": "its `data` are returned",
    "PromotedOut": "it becomes Promoted, which can wait",
    "PromotionOut": "it becomes Promotion, the same",
    "RetriedOut": "its `data` are returned, until there are no `more`",
    "SubmittedOut": "it becomes Submitted, which can wait",
    "TextOut": "its `text` is returned",
    "QuestionSetOut": "FullQuestionSetOut without its questions, which are None then",
    "TokenOut": "SubjectTokenOut without a subject, which is None then",
    "TraceOut": "FullTraceOut without what lists leave out, which is None or empty then",
    "AskedOfOut": "a mapping of Trace.collections",
    "AttributeOut": "a mapping of Collection.attributes",
    "ChunkingOut": "a mapping: Document.chunking, Profile.chunking",
    "ContextDifferenceOut": "a mapping: Replay.context",
    "ExplainedPassageOut": "a mapping inside `explanation`",
    "ExplanationOut": "a mapping: `explanation`",
    "FusionOut": "a mapping: Profile.fusion",
    "JudgedOut": "a mapping of QuestionSet.questions",
    "MessageOut": "a mapping of Context.messages",
    "Part": "a mapping of what `ready` returns",
    "PlaceOut": "a mapping inside `explanation`",
    "QueryUsage": "a mapping: `usage`",
    "RecallUsage": "a mapping: Recalled.usage",
    "RecalledOut": "a mapping of Trace.recalled",
    "ReadinessOut": "a mapping: what `ready` returns",
    "ReplayedPlaceOut": "a mapping: ReplayRow.then, ReplayRow.now",
    "ReuseOut": "a mapping: `semantic_cache`",
    "RewriteOut": "a mapping inside `explanation`",
    "SourceOut": "a mapping of Memory.sources",
    "SpanOut": "a mapping of Recalled.spans",
    "SpentOut": "a mapping of ConversationDifference.tokens",
    "StoodOut": "a mapping: ConversationItem.then, ConversationItem.now",
    "TracedPassageOut": "a mapping of Trace.passages",
    "WarningOut": "a mapping of Document.warnings",
    "LegOut": "a mapping inside `explanation`",
    "FoundByOut": "a mapping of Trace.passages",
}
#: What an operation takes and the client does not send, each with the reason.
NOT_SENT = {
    "retry_jobs": {"limit": "it goes on until there are no more"},
}
#: Operations that no method needs, each with the reason.
NOT_CALLED = {"erase_subject": "create_erasure does the same, for names too that fit into no path"}
PAGING = {"after", "limit"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(cast(ApiServices, None)).openapi()


def _operations(document: dict[str, Any]) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Method, path and definition of each by its id, without those of other clients."""
    return {
        operation["operationId"]: (method.upper(), path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if not path.startswith(FOREIGN)
    }


def test_every_operation_has_a_call(document: dict[str, Any]) -> None:
    assert CALLS.keys() | NOT_CALLED.keys() == _operations(document).keys()
    assert CALLS.keys().isdisjoint(NOT_CALLED)


class Sent(Exception):
    """A request was to be sent; ends the call."""


#: What calls ask for before their own request, by the operation of that.
BEFORE = {"get_question_set": "/v1/question-sets", "delete_question_set": "/v1/question-sets", "retry_jobs": "/v1/jobs"}
FIELDS = {field.name for kind in (Job, QuestionSet) for field in dataclasses.fields(kind)} - {"progress"}
LISTED = {"data": [{**dict.fromkeys(FIELDS), "id": "qs_1"}], "next": None}


@dataclass
class Wire:
    """Takes requests instead of a network: answers what is asked before, and ends the call with the one that matters."""

    operation: str
    requests: list[httpx2.Request] = field(default_factory=list)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path == BEFORE.get(self.operation):
            return httpx2.Response(200, json=LISTED)
        self.requests.append(request)
        raise Sent


def _requests(world: str, operation: str) -> list[httpx2.Request]:
    wire = Wire(operation)
    with client_over(world, httpx2.MockTransport(wire)) as carrel:
        for call in CALLS[operation]:
            with pytest.raises(Sent):
                call(carrel)
    return wire.requests


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("operation", CALLS)
def test_a_call_is_what_the_service_takes(document: dict[str, Any], operation: str, world: str) -> None:
    method, path, declared = _operations(document)[operation]
    requests = _requests(world, operation)
    for request in requests:
        assert request.method == method
        assert re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), request.url.path)
    absent = set(NOT_SENT.get(operation, {}))
    queries = {parameter["name"] for parameter in declared.get("parameters", ()) if parameter["in"] == "query"}
    sent = {name for request in requests for name in request.url.params}
    assert sent | absent & queries == queries if "after" not in queries else sent | PAGING == queries
    schema = _body(document, declared)
    if schema is not None:
        bodies = [set(json.loads(request.content)) for request in requests]
        assert set().union(*bodies) == set(schema["properties"]) - absent
        assert all(body >= set(schema.get("required", ())) for body in bodies)


def _body(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any] | None:
    schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if schema is None:
        return None
    name = next(_references(schema), None)
    found: dict[str, Any] = schema if name is None or "properties" in schema else document["components"]["schemas"][name]
    return found


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner.rpartition("/")[2]
            else:
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _answered(document: dict[str, Any]) -> set[str]:
    """Names of all schemas that answers consist of."""
    schemas, found = document["components"]["schemas"], set[str]()
    answers = [
        answer
        for _, _, operation in _operations(document).values()
        for status, answer in operation["responses"].items()
        if status.startswith("2")
    ]
    coming = [*_references(answers)]
    while coming:
        name = coming.pop()
        if name not in found:
            found.add(name)
            coming += _references(schemas[name])
    return found


def _models(base: type[Model] = Model) -> dict[str, type[Model]]:
    found = {kind.__name__: kind for kind in base.__subclasses__()}
    for kind in [*found.values()]:
        found |= _models(kind)
    return found


def test_every_field_of_an_answer_is_known_to_both_sides(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    models = {name: kind for name, kind in _models().items() if name not in UNDECLARED}
    assert len(models) > 60
    for name, kind in models.items():
        fields = {RENAMED.get(name, {}).get(field.name, field.name) for field in dataclasses.fields(kind)}
        told = LINES[name].model_fields if name in LINES else schemas[SCHEMAS.get(name, f"{name}Out")]["properties"]
        assert fields == set(told), name


def test_every_answer_has_a_model(document: dict[str, Any]) -> None:
    modelled = {SCHEMAS.get(name, f"{name}Out") for name in _models()}
    lists = {name for name in _answered(document) if name.startswith("Page_")}
    assert _answered(document) - modelled - lists == set(WITHOUT_MODEL)
    assert modelled.isdisjoint(WITHOUT_MODEL)
