"""Turns that were said, found again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from carrel_client._sync.transport import Transport
from carrel_client.exchange import path_of
from carrel_client.recall import Recalled, RecallWishes


class Recalling:
    """What `carrel.sessions` and `carrel` can recall."""

    _transport: Transport

    def _recalled(self, path: str, body: Mapping[str, Any], wishes: RecallWishes) -> Recalled:
        given = {name: value for name, value in {**body, **wishes}.items() if value is not None}
        return Recalled.parse(self._transport.call("POST", path, json=given, repeatable=True))


class RecallsSession(Recalling):
    def recall(self, session_id: str, query: str, *, top_k: int = 10, **wishes: Unpack[RecallWishes]) -> Recalled:
        """Find the turns of the session that answer `query`.

        Example: `found = carrel.sessions.recall(session.id, "which flowers does she like?")`
        """
        return self._recalled(path_of("/v1/sessions", session_id, "recall"), {"query": query, "top_k": top_k}, wishes)


class RecallsSubject(Recalling):
    def recall(
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

        Example: `found = carrel.recall("which flowers does she like?", subject="ann")`
        """
        body = {"query": query, "subject": subject, "tags": list(tags), "top_k": top_k}
        return self._recalled("/v1/recall", body, wishes)
