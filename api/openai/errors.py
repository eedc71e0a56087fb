"""Refusals in the shape that the OpenAI SDK reads, whatever layer they came from."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PROBLEM = b"application/problem+json"
PATHS = re.compile(r"/v1/(vector_stores|files|embeddings|models)(/.*)?", re.DOTALL)  # an id may be any text
#: What the SDK has a class for that says more than its own would.
STATUSES = {422: 400, 415: 400}
TYPES = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}


class OpenAIErrorDetail(BaseModel):
    message: str
    type: str = Field(examples=["invalid_request_error"])
    param: str | None = Field(description="The input at fault.")
    code: str = Field(description="As of the native API; stable.", examples=["not_found"])


class OpenAIError(BaseModel):
    """Why a request was refused, as the OpenAI SDK reads it."""

    error: OpenAIErrorDetail


class OpenAIErrors:
    """Rewrites the problem details of these paths, outside of everything that can answer with one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not PATHS.fullmatch(scope["path"]):
            await self.app(scope, receive, send)
            return
        held: Message | None = None
        body = bytearray()

        async def send_wrapper(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start":
                if Headers(raw=message["headers"]).get("content-type", "").encode() == PROBLEM:
                    held = message
                    return
            elif held is not None:
                body.extend(message.get("body", b""))
                if not message.get("more_body"):
                    await _send(send, held, bytes(body))
                return
            await send(message)

        await self.app(scope, receive, send_wrapper)


async def _send(send: Send, start: Message, problem: bytes) -> None:
    rendered = shaped(json.loads(problem)).model_dump_json().encode()
    headers = MutableHeaders(raw=[*start["headers"]])
    headers["content-type"], headers["content-length"] = "application/json", str(len(rendered))
    status = STATUSES.get(start["status"], start["status"])
    await send({**start, "status": status, "headers": headers.raw})
    await send({"type": "http.response.body", "body": rendered})


def shaped(problem: dict[str, Any]) -> OpenAIError:
    status = int(problem["status"])
    fallback = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    return OpenAIError(
        error=OpenAIErrorDetail(
            message=problem["detail"],
            type=TYPES.get(status, fallback),
            param=problem.get("field"),
            code=problem["code"],
        )
    )
