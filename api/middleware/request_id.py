"""Names each request, answers for what fails around the routes, and sends requests away that begin while the process stops."""

from __future__ import annotations

import logging
import re
import secrets
import threading

from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.middleware.paths import PUBLIC
from api.problems import problem_response, unexpected
from config.errors import Unavailable
from config.logs import request_id

log = logging.getLogger(__name__)

RETRY_AFTER_S = 5  # about what a restart takes
_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestId:
    """Names the request: the caller's `X-Request-Id` if it is harmless, else a new one. Echoed and in every log line."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        name = given if _GIVEN_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = name

        started = False

        async def send_wrapper(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["x-request-id"] = name
            await send(message)

        token = request_id.set(name)
        try:
            await self.app(scope, receive, send_wrapper)
        except ClientDisconnect:
            log.info("the client went away")
        except (OperationalError, PoolTimeout) as error:
            log.error("the database does not answer", exc_info=error)
            if not started:
                refused = Unavailable("The database does not answer.", retry_after_s=2)
                await problem_response(refused)(scope, receive, send_wrapper)
        except Exception as error:
            if started:  # the server cuts the answer off, and logs why
                raise
            await unexpected(error)(scope, receive, send_wrapper)
        finally:
            request_id.reset(token)


class Drain:
    """While the process stops, requests that begin are sent away; those that began before run to their end."""

    def __init__(self, app: ASGIApp, draining: threading.Event) -> None:
        self.app, self._draining = app, draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._draining.is_set():
            await self.app(scope, receive, send)
            return

        async def send_wrapper(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        if scope["path"] in PUBLIC:
            await self.app(scope, receive, send_wrapper)
        else:
            refused = Unavailable("The service is stopping.", retry_after_s=RETRY_AFTER_S)
            await problem_response(refused)(scope, receive, send_wrapper)
