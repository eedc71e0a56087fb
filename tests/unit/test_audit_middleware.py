"""However a request ends, it is on record: answered, failed, or left by its client."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.requests import ClientDisconnect

from api.middleware import Audit
from tenants.audit.record import AuditLog, Event
from tenants.context import Principal, PrincipalKind

WHO = Principal(PrincipalKind.KEY, "key_x", frozenset())


Recorded = list[tuple[str, int, str | None]]  #: action, status, intent


class Log:
    """Takes what is appended, with the intent that it ends."""

    def __init__(self) -> None:
        self.seen: Recorded = []

    def append(self, event: Event, *, intent: str | None = None) -> None:
        self.seen.append((event.action, event.status, intent))


def _ends(
    how: BaseException | int | None, method: str = "POST", path: str = "/v1/documents", audited: int | None = None
) -> list[tuple[str, int, str | None]]:
    """What is recorded of a request whose handler ends like this: raises, answers with a status, or just returns."""

    async def handler(scope: Any, _receive: Any, send: Any) -> None:
        scope["state"]["identity"] = SimpleNamespace(principal=WHO, tenant=None)
        scope["state"] |= {"audit_intent": "aud_1", "audited": audited}
        if isinstance(how, BaseException):
            raise how
        if how is not None:
            await send({"type": "http.response.start", "status": how, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    async def send(_message: Any) -> None:
        pass

    log = Log()
    scope = {"type": "http", "method": method, "path": path, "state": {"request_id": "req"}, "client": None}
    with nullcontext() if how is None or isinstance(how, int) else pytest.raises(type(how)):
        asyncio.run(Audit(handler, cast(AuditLog, log))(scope, send, send))
    return log.seen


@pytest.mark.parametrize("how", [RuntimeError("broken"), ClientDisconnect(), SystemExit(3), None])
def test_a_request_without_an_answer_is_recorded_as_failed(how: BaseException | None) -> None:
    assert _ends(how) == [("POST /v1/documents", 500, "aud_1")]


def test_an_answer_is_recorded_once() -> None:
    assert _ends(201) == [("POST /v1/documents", 201, "aud_1")]


def test_what_is_on_record_with_its_effect_is_recorded_again_only_if_it_ends_otherwise() -> None:
    assert _ends(201, audited=201) == []
    assert _ends(503, audited=201) == [("POST /v1/documents", 503, "aud_1")]
    assert _ends(None, audited=201) == [("POST /v1/documents", 500, "aud_1")]


@pytest.mark.parametrize(
    ("path", "status", "recorded"),
    [
        ("/v1/documents", 200, False),
        ("/v1/documents", 403, True),
        ("/v1/documents/doc_1/text", 200, True),
        ("/v1/documents/doc_1/text/more", 200, False),
        ("/v1/passages/p_1", 200, True),
        ("/v1/audit", 200, False),
        ("/v1/audit/export", 200, True),
        ("/v1/admin/audit/export", 200, True),
    ],
)
def test_of_reads_those_are_recorded_that_hand_out_content(path: str, status: int, recorded: bool) -> None:
    assert bool(_ends(status, "GET", path)) is recorded
