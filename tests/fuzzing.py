"""Random calls of everything in the OpenAPI document, and what an answer to one must be.

The calls are schemathesis', of both kinds: as the document says, and not quite. Where they may name things, they are made to
name what the caller has, what another tenant has, and what nobody has: the isolation suite's table says where that is.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict
from schemathesis.config import SchemathesisConfig
from schemathesis.core import NOT_SET
from schemathesis.core.failures import FailureGroup
from schemathesis.core.transport import Response
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import create_app
from api.routing import SCOPE_KEY
from tests.isolation.declarations import OPERATIONS, Operation, kind_of
from tests.isolation.doors import LINES, Answer
from tests.isolation.probes import sibling
from tests.isolation.world import CONTENT, SPOKEN, Member, World, filled

SEED = 20_262
CHECKS = [status_code_conformance, content_type_conformance, response_headers_conformance, response_schema_conformance]
ALL_PHASES = {"database": None, "deadline": None, "phases": [Phase.generate], "suppress_health_check": list(HealthCheck)}
#: Words of documents, memories and turns, which not even an operator is shown.
PRIVATE = (*CONTENT[:1], *SPOKEN[1:2], "fact")
SHOWN = 300  #: characters of an answer in a finding


@schemathesis.serializer(LINES)
def _lines(_context: Any, value: Any) -> bytes:
    values = value if isinstance(value, list) else [value]
    return b"".join(json.dumps(each).encode() + b"\n" for each in values)


@dataclass
class Outcome:
    """Of all calls of some operations."""

    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    findings: dict[tuple[str, str], str] = field(default_factory=dict)  #: one example for each kind

    @property
    def calls(self) -> int:
        return sum(each.total() for each in self.statuses.values())

    def found(self, operation: str, kind: str, example: str) -> None:
        self.findings.setdefault((operation, kind), example)

    def __str__(self) -> str:
        return "\n\n".join(f"{operation}: {kind}\n  {example}" for (operation, kind), example in self.findings.items())


class Fuzz:
    def __init__(self, world: World) -> None:
        self._world, self.outcome = world, Outcome()
        document = json.loads(json.dumps(create_app(world.services).openapi()))
        self._schema = schemathesis.openapi.from_dict(document, config=SchemathesisConfig())
        self._declared: dict[str, list[Operation]] = {}
        for operation in OPERATIONS:
            self._declared.setdefault(operation.name, []).append(operation)
        self._run = 0  #: calls of the operation at hand
        self._sent: list[str] = []  #: since the last rewinding: what is answered of it gives nothing away

    def operations(self) -> Iterator[tuple[str, Any]]:
        for result in self._schema.get_all_operations():
            operation = result.ok()
            yield f"{operation.method.upper()} {operation.path}", operation

    def run(self, name: str, operation: Any, calls: int) -> None:
        """So many calls of it, in a world that is as it was made."""
        self._world.rewind()
        self._sent.clear()
        self._run = 0

        @seed(SEED)
        @settings(max_examples=calls, **ALL_PHASES)
        @given(_cases(operation), st.integers(0, 2**32))
        def one(case: Any, chance: int) -> None:
            self._one(name, case, random.Random(chance))

        one()

    def cover(self, name: str, operation: Any) -> None:
        """Once each: every bound of the document on both of its sides, what is required left out, and other kinds of value."""
        self._world.rewind()
        self._sent.clear()
        chance = random.Random(SEED)
        modes, config = list(GenerationMode), self._schema.config.generation_for(operation=operation)
        for case in self._schema.iter_coverage_cases(operation, generation_modes=modes, generation_config=config):
            if case.method == operation.method.upper():  # other methods have a test of their own
                me, other = chance.sample(self._world.members[:2], 2)
                if chance.random() < 0.75:
                    good = self._world.good(self._declared[name][0], me)
                    case.path_parameters = dict(good.get("path", {}))
                self._sends(name, case, me, other)

    def _one(self, name: str, case: Any, chance: random.Random) -> None:
        me, other = chance.sample(self._world.members[:2], 2)
        self._named(name, case, chance, me, other)
        self._sends(name, case, me, other)

    def _sends(self, name: str, case: Any, me: Member, other: Member) -> None:
        scope = case.operation.definition.raw[SCOPE_KEY]
        request = _prepared(case)
        self._sent.append(f"{request.url} {dict(request.headers)} {_text(request)}")
        if scope != "none":
            self._denied(name, self._exchange(request, None))
        credential = self._world.operator if scope == "operate" else me.credentials["full key"]
        answer = self._exchange(request, credential if scope != "none" else None)
        self.outcome.statuses.setdefault(name, Counter())[answer.status] += 1
        self._conforms(name, case, request, answer)
        self._tells_nothing(name, answer, other, operates=scope == "operate")

    def _exchange(self, request: requests.PreparedRequest, credential: str | None) -> Answer:
        path, _, query = (request.path_url or "").partition("?")
        headers = {name: value for name, value in request.headers.items() if name.lower() != "authorization"}
        content = request.body.encode("utf-8", "surrogatepass") if isinstance(request.body, str) else request.body or b""
        headers |= {"authorization": credential} if credential is not None else {}
        return self._world.door.exchange(request.method or "", path, query, headers, content)

    def _denied(self, name: str, answer: Answer) -> None:
        if answer.status != 401 or answer.read:
            self.outcome.found(name, "is not denied before the body is read", str(answer.status))

    def _conforms(self, name: str, case: Any, request: requests.PreparedRequest, answer: Answer) -> None:
        sent = f"{request.method} {request.path_url} {_text(request)[:SHOWN]!r} -> {answer.status} {answer.body[:SHOWN]}"
        headers: dict[str, list[str]] = {}
        for key, value in answer.headers:
            headers.setdefault(key, []).append(value)
        if answer.status >= 500 and not (answer.status == 503 and "retry-after" in headers):
            self.outcome.found(name, "fails", sent)
        body = answer.body.encode()
        try:
            case.validate_response(Response(answer.status, headers, body, request, 0.0, verify=True), checks=CHECKS)
        except FailureGroup as group:
            for failure in group.exceptions:
                self.outcome.found(name, f"{failure.title} ({answer.status})", f"{failure.message[:SHOWN]}\n  {sent}")

    def _tells_nothing(self, name: str, answer: Answer, other: Member, *, operates: bool) -> None:
        pools = PRIVATE if operates else {kind.partition("/")[0] for kind in other.own}
        told = " ".join([answer.body, *(value for _, value in answer.headers)])
        for kind in pools:
            for word in other.pool(kind):
                if word in told and not any(word in sent for sent in self._sent):
                    self.outcome.found(name, f"tells another tenant's {kind}", told[:SHOWN])

    def _named(self, name: str, case: Any, chance: random.Random, me: Member, other: Member) -> None:
        """Let the call name things. The first call is the table's good one, and so is every fourth but for a name or two."""
        first, good = self._run == 0, self._run % 4 == 0
        declared = self._declared[name][0] if first else chance.choice(self._declared[name])
        self._run += 1
        if good:
            _replaced(case, self._world.good(declared, me))
        for place, kind in declared.takes.items():
            known = kind_of(kind)
            if first or (good and chance.random() < 0.8):
                continue
            owner = chance.choice([me, me, me, other, None, None])
            pool = (owner or me).pool(known.like or kind.partition("/")[0]) or me.pool(kind)
            if not pool or (known.optional and chance.random() < 0.5):
                continue
            value = chance.choice(pool)
            _placed(case, place, sibling(value, chance) if owner is None else value)


def _cases(operation: Any) -> st.SearchStrategy[Any]:
    kinds = [GenerationMode.POSITIVE]
    if operation.body or any(True for _ in operation.iter_parameters()):
        kinds.append(GenerationMode.NEGATIVE)
    return st.one_of(*(operation.as_strategy(generation_mode=kind) for kind in kinds))


def _replaced(case: Any, values: dict[str, Any]) -> None:
    case.path_parameters = dict(values.get("path", {}))
    case.query, case.headers = dict(values.get("query", {})), CaseInsensitiveDict(values.get("header", {}))
    for part, media in (("body", "application/json"), ("form", "multipart/form-data"), ("line", LINES)):
        if part in values:
            case.body, case.media_type = values[part], media


def _placed(case: Any, place: str, value: str) -> None:
    """Nothing, if the call has not that shape."""
    part, _, way = place.partition(".")
    container = {"path": case.path_parameters, "query": case.query, "header": case.headers}.get(part, case.body)
    if container is NOT_SET or not isinstance(container, dict | CaseInsensitiveDict):
        return
    if part in ("path", "query", "header"):
        container[way] = value
        return
    try:
        case.body = filled(container, {way: value})
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return


def _prepared(case: Any) -> requests.PreparedRequest:
    kept = {"method", "url", "params", "data", "json", "headers", "cookies", "files"}
    kwargs = case.as_transport_kwargs(base_url="http://carrel")
    return requests.Request(**{name: value for name, value in kwargs.items() if name in kept}).prepare()


def _text(request: requests.PreparedRequest) -> str:
    return request.body.decode(errors="replace") if isinstance(request.body, bytes) else str(request.body or "")
