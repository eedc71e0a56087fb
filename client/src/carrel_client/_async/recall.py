"""Turns that were said, found again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from carrel_client._async.transport import AsyncTransport
from carrel_client.exchange import path_of
from carrel_client.recall import Recalled, RecallWishes


class AsyncRecalling:
    """What `carrel.sessions` and `carrel` can recall."""

    _transport: AsyncTransport

    async def _recalled(self, path: str, body: Mapping[str, Any], wishes: RecallWishes) -> Recalled:
        given = {name: value for name, value in {**body, **wishes}.items() if value is not None}
        return Recalled.parse(await self._transport.call("POST", path, json=given, repeatable=True))


class AsyncRecallsSession(AsyncRecalling):
    async def recall(self, session_id: str, query: str, *, top_k: int = 10, **wishes: Unpack[RecallWishes]) -> Recalled:
        """Find the turns of the session that answer `query`.

        Example: `found = await carrel.sessions.recall(session.id, "which flowers does she like?")`
        """
        return await self._recalled(path_of("/v1/sessions", session_id, "recall"), {"query": query, "top_k": top_k}, wishes)


class AsyncRecallsSubject(AsyncRecalling):
    async def recall(
        self,
        query: str,
        *,
        subject: str | None = None,
        tags: Sequence[str] = (),
        top_k: int = 10,
        **wishes: Unpack[RecallWishes],
    ) -> Recalled:
        """Find the turns of all sessions of a subject that answer `query`. With a subject's token it need not be named.

        `tags`: only sessions that have all of them.

        Example: `found = await carrel.recall("which flowers does she like?", subject="ann")`
        """
        body = {"query": query, "subject": subject, "tags": list(tags), "top_k": top_k}
        return await self._recalled("/v1/recall", body, wishes)
