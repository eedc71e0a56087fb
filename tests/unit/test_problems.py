"""Every refusal is a problem document of one shape, and none tells what is inside the service."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import FastAPI, Query
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

from api.problems import MAX_LISTED, install_handlers, problem_response, unexpected
from config import errors
from config.errors import CarrelError
from config.logs import request_id


def _kinds(base: type[CarrelError] = CarrelError) -> list[type[CarrelError]]:
    own = [kind for kind in base.__subclasses__() if kind.__module__ == errors.__name__]
    return own + [deeper for kind in own for deeper in _kinds(kind)]


class Body(BaseModel):
    name: str = Field(max_length=3)
    numbers: list[int]


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    app = FastAPI()
    install_handlers(app)

    @app.post("/body")
    def body(body: Body, limit: Annotated[int, Query(le=5)] = 1) -> None:
        pass

    @app.get("/wrapped")
    def wrapped() -> None:
        raise HTTPException(400, "hidden") from errors.TooLarge("Too much.", limit=7)

    @app.get("/teapot")
    def teapot() -> None:
        raise HTTPException(418)

    with TestClient(app) as client:
        yield client


def _problem(response: httpx2.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == response.status_code
    assert problem["type"] == f"urn:carrel:problem:{problem['code']}"
    assert problem["title"]
    assert problem["detail"]
    return problem


@pytest.mark.parametrize("kind", _kinds(), ids=lambda kind: kind.__name__)
def test_every_error_renders_with_its_own_status_and_code(kind: type[CarrelError]) -> None:
    response = problem_response(kind("Because.", field="f", limit=3, retry_after_s=1.2))
    problem = json.loads(response.body)
    assert (response.status_code, problem["code"], problem["title"]) == (kind.status, kind.code, kind.title)
    assert (problem["detail"], problem["field"], problem["limit"]) == ("Because.", "f", 3)
    assert problem["retryable"] is kind.retryable
    assert response.headers["retry-after"] == "2"
    assert ("www-authenticate" in response.headers) == (kind.status == 401)


def test_codes_are_distinct() -> None:
    codes = [kind.code for kind in _kinds()]
    assert len(set(codes)) == len(codes)


def test_absent_fields_are_left_out() -> None:
    problem = json.loads(problem_response(errors.NotFound("No.")).body)
    assert set(problem) == {"type", "title", "status", "code", "detail", "retryable"}


def test_the_request_is_named_where_there_is_one() -> None:
    token = request_id.set("req_x")
    try:
        assert json.loads(problem_response(errors.NotFound("No.")).body)["request_id"] == "req_x"
    finally:
        request_id.reset(token)


def test_an_unexpected_error_is_logged_and_not_told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    own = logging.Logger("own")  # libraries of other tests switch the process's loggers off
    own.addHandler(caplog.handler)
    monkeypatch.setattr("api.problems.log", own)
    response = unexpected(ValueError("password=hunter2"))
    assert response.status_code == 500
    assert b"hunter2" not in bytes(response.body)
    assert "hunter2" in caplog.text


def test_an_invalid_body_names_each_field_without_repeating_its_content(client: TestClient) -> None:
    response = client.post("/body?limit=9", json={"name": "secret", "numbers": ["x", 1, None]})
    problem = _problem(response)
    assert (problem["status"], problem["code"]) == (422, "invalid_input")
    listed = {item["field"]: item for item in problem["errors"]}
    assert set(listed) == {"limit", "name", "numbers.0", "numbers.2"}
    assert (listed["limit"]["limit"], listed["name"]["limit"]) == (5, 3)
    assert problem["field"] == problem["errors"][0]["field"]
    assert "secret" not in response.text


def test_a_long_list_of_faults_is_cut(client: TestClient) -> None:
    response = client.post("/body", json={"name": "x", "numbers": ["x"] * 1000})
    assert len(_problem(response)["errors"]) == MAX_LISTED


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[1, 2", b"null", b"[" * 100_000])
def test_a_broken_body_is_the_callers_fault(client: TestClient, content: bytes) -> None:
    response = client.post("/body", content=content, headers={"content-type": "application/json"})
    assert _problem(response)["status"] in (400, 422)


def test_the_frameworks_refusals_have_the_same_shape(client: TestClient) -> None:
    assert _problem(client.get("/nowhere"))["code"] == "not_found"
    assert _problem(client.get("/body"))["code"] == "method_not_allowed"
    assert _problem(client.get("/teapot"))["code"] == "im_a_teapot"


def test_an_error_of_ours_that_the_framework_wrapped_is_shown_itself(client: TestClient) -> None:
    problem = _problem(client.get("/wrapped"))
    assert (problem["code"], problem["limit"]) == ("too_large", 7)
