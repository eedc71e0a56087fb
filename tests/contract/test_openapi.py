"""The real application does what its OpenAPI document says, whatever it is called with, and of its own tenant only.

No operation is left out. A stream that never ends by itself (`GET /v1/jobs/{job_id}/events` of a job that waits) is left after
its first words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.fuzzing import Fuzz
from tests.isolation.world import World, made

EVERYDAY, FULL = 4, 75  #: random calls of each operation; of all, 560 and 10,500
pytestmark = pytest.mark.xdist_group("openapi")  # one world for all of it


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch, made(tmp_path_factory.mktemp("openapi"), patch) as world:
        yield world


@pytest.mark.parametrize(
    "calls", [EVERYDAY, pytest.param(FULL, marks=[pytest.mark.full, pytest.mark.timeout(3600)])], ids=["everyday", "full"]
)
def test_answers_are_those_of_the_document(world: World, calls: int) -> None:
    fuzz = Fuzz(world)
    for name, operation in fuzz.operations():
        fuzz.run(name, operation, calls)
        if calls == FULL:
            fuzz.cover(name, operation)
    assert not fuzz.outcome.findings, f"of {fuzz.outcome.calls} calls:\n{fuzz.outcome}"
    assert fuzz.outcome.calls >= (500 if calls == EVERYDAY else 10_000)
    silent = [name for name, statuses in fuzz.outcome.statuses.items() if not any(status < 300 for status in statuses)]
    assert not silent, f"no call of these was answered with success: {silent}"


def test_another_method_is_refused_with_those_that_there_are(world: World) -> None:
    offered: dict[str, set[str]] = {}
    for name in world.door.operations():
        method, _, path = name.partition(" ")
        offered.setdefault(path, set()).add(method)
    for path in offered:
        at = {method for each, methods in offered.items() if _template(each).fullmatch(path) for method in methods}
        for method in {"GET", "PUT", "POST", "PATCH", "DELETE", "TRACE"} - at:
            answer = world.door.exchange(method, path, "", {"authorization": world.operator}, b"")
            assert answer.status == 405, f"{method} {path}"
            assert dict(answer.headers)["allow"] == ", ".join(sorted(at))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b'{"name": "\xff"}'),
        ("application/json", b'{"name": ' + b"[" * 60_000),
        ("application/json", b'{"name": ' + b"1" * 5_000 + b"}"),
        ("application/json", b"{"),
        ("text/plain", b"{}"),
    ],
    ids=["no UTF-8", "deep", "long number", "broken", "no JSON"],
)
def test_a_body_that_cannot_be_parsed_is_not_valid(world: World, kind: str, body: bytes) -> None:
    headers = {"authorization": world.members[0].credentials["full key"], "content-type": kind}
    native = world.door.exchange("POST", "/v1/collections", "", headers, body)
    assert (native.status, json.loads(native.body)["code"]) == (422, "invalid_input")
    for_sdk = world.door.exchange("POST", "/v1/vector_stores", "", headers, body)
    assert (for_sdk.status, json.loads(for_sdk.body)["error"]["code"]) == (400, "invalid_input")


def test_what_is_no_form_and_no_message_of_the_protocol_is_refused_in_our_shape(world: World) -> None:
    headers = {"authorization": world.members[0].credentials["full key"], "content-type": "multipart/form-data"}
    for path, status in (("/v1/documents", 422), ("/v1/files", 400)):
        assert world.door.exchange("POST", path, "", headers, b"--x").status == status
    refused = world.door.exchange("POST", "/mcp/", "", headers, b"{}")
    assert (refused.status, json.loads(refused.body)["code"]) == (415, "unsupported_media_type")


def test_every_id_below_the_sdks_paths_is_refused_in_the_sdks_shape(world: World) -> None:
    headers = {"authorization": world.members[0].credentials["full key"]}
    refused = world.door.exchange("GET", "/v1/models/a%0Ab", "", headers, b"")
    assert (refused.status, json.loads(refused.body)["error"]["param"]) == (404, "model")


def _template(path: str) -> re.Pattern[str]:
    """As `/v1/jobs/{job_id}`, at which `/v1/jobs/retry` is found too."""
    return re.compile(re.sub(r"{\w+}", "[^/]+", path))
