"""Questions: passages, contexts packed from them, and a passage in its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from carrel_client._async.transport import AsyncTransport
from carrel_client.answers import Context, PassageView, QueryResult
from carrel_client.asking import SessionWishes, Wishes
from carrel_client.exchange import path_of as _path


class AsyncAsking:
    """What `Carrel` can ask."""

    _transport: AsyncTransport

    async def query(self, query: str, *, top_k: int = 10, session: str | None = None, **wishes: Unpack[Wishes]) -> QueryResult:
        """Find the passages that answer `query`, best first. With a `session` what is attached to it is searched too, and
        `collections` may be empty.

        Example: `result = await carrel.query("who may enter the map room?", top_k=3)`
        """
        body = {"top_k": top_k, **({} if session is None else {"session": session})}
        return QueryResult.parse(await self._ask("/v1/query", query, body, wishes))

    async def context(
        self,
        query: str | None = None,
        *,
        max_tokens: int = 2000,
        tokenizer: str = "o200k_base",
        top_k: int = 20,
        session: str | None = None,
        message: str | None = None,
        **wishes: Unpack[SessionWishes],
    ) -> Context:
        """The passages that answer `query` as one text for a language model, of at most `max_tokens`, with citations; with a
        `session` its turns too, and `messages` for a chat.

        `tokenizer`: "o200k_base", "cl100k_base", or "embedding", that of the service's embedding model. `message`: what the
        user says now, which stands last. Without a query, the message is asked for, or what the user said last.

        Example: `context = await carrel.context("who may enter the map room?", max_tokens=1000)`
        """
        body = {"max_tokens": max_tokens, "tokenizer": tokenizer, "top_k": top_k}
        body |= {name: value for name, value in (("session", session), ("message", message)) if value is not None}
        return Context.parse(await self._ask("/v1/context", query, body, wishes))

    async def chat_context(
        self, *, session: str, message: str, max_tokens: int = 4000, **wishes: Unpack[SessionWishes]
    ) -> Context:
        """What a language model is to be given when the user says `message`: `messages` of the answer go to any SDK as they
        are, and have at most `max_tokens`. The message is not appended to the session.

        Example: `context = await carrel.chat_context(session=session.id, message="And on Sundays?", max_tokens=2000)`
        """
        return await self.context(session=session, message=message, max_tokens=max_tokens, **wishes)

    async def passage(
        self, passage_id: str, *, around: int = 500, version: int | None = None, session: str | None = None
    ) -> PassageView:
        """A passage inside its document's text, with up to `around` characters before and after it.

        `version`: as another version than the live one had it, if that is kept. `session`: to which its document is attached.

        Example: `view = await carrel.passage(passage.id, around=200)`
        """
        params = {"around": around, "version": version, "session": session}
        answer = await self._transport.call("GET", _path("/v1/passages", passage_id), params=params)
        return PassageView.parse(answer)

    async def _ask(self, path: str, query: str | None, body: Mapping[str, Any], wishes: Wishes) -> Any:
        given = {name: value for name, value in {"query": query, **wishes}.items() if value is not None}
        body = {**body, **given}
        return await self._transport.call("POST", path, json=body, repeatable=True)
