"""Questions: passages, contexts packed from them, and a passage in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

from carrel_client.answers import Context, PassageView, QueryResult
from carrel_client.transport import Transport
from carrel_client.transport import path_of as _path


class Wishes(TypedDict, total=False):
    """What a question can ask for besides its words; what is None is left to the service."""

    queries: Sequence[str] | None  #: other phrasings
    collections: Sequence[str] | None
    filter: Mapping[str, Any] | None
    diversity: Mapping[str, Any] | None  #: collapse, per_document, mmr
    expand: Mapping[str, int] | None  #: before, after
    boosts: Sequence[Mapping[str, Any]] | None  #: each a filter and a weight
    recency: Mapping[str, float] | None  #: weight, half_life_days
    min_relevance: float | None
    group_by: str | None
    group_size: int | None
    rerank: bool | None
    rewrite: str | None  #: by a language model before the search: multi_query, hyde, decompose or none
    as_of: str | int | None  #: answer as of then: ISO 8601 with its zone, or Unix milliseconds
    mode: str | None  #: hybrid (default), dense or lexical
    dense_weight: float | None  #: 0 to 1: of meaning; the rest is that of words
    tuned: bool | None  #: False leaves out what the collections are tuned to
    explain: bool | None  #: say how the answer came to be


class SessionWishes(Wishes, total=False):
    """What a context of a session can ask for beside that."""

    strategy: str | None  #: hybrid (default), recent, recall or documents
    memories: bool | None  #: also what is remembered of the subject
    shares: Mapping[str, float] | None  #: of the budget: recent, summary, memories, documents, recalled
    newest_turns: int | None  #: so many stand in it, or InvalidRequestError says how much they lack
    recall_top_k: int | None
    pins: Sequence[str] | None  #: texts that stand first
    knowledge: str | None  #: where what was found stands: last (default) or system


class Asking:
    """What `Carrel` can ask."""

    _transport: Transport

    def query(self, query: str, *, top_k: int = 10, session: str | None = None, **wishes: Unpack[Wishes]) -> QueryResult:
        """Find the passages that answer `query`, best first. With a `session` what is attached to it is searched too, and
        `collections` may be empty."""
        body = {"top_k": top_k, **({} if session is None else {"session": session})}
        return QueryResult.parse(self._ask("/v1/query", query, body, wishes))

    def context(
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
        """
        body = {"max_tokens": max_tokens, "tokenizer": tokenizer, "top_k": top_k}
        body |= {name: value for name, value in (("session", session), ("message", message)) if value is not None}
        return Context.parse(self._ask("/v1/context", query, body, wishes))

    def chat_context(self, *, session: str, message: str, max_tokens: int = 4000, **wishes: Unpack[SessionWishes]) -> Context:
        """What a language model is to be given when the user says `message`: `messages` of the answer go to any SDK as they
        are, and have at most `max_tokens`. The message is not appended to the session."""
        return self.context(session=session, message=message, max_tokens=max_tokens, **wishes)

    def passage(
        self, passage_id: str, *, around: int = 500, version: int | None = None, session: str | None = None
    ) -> PassageView:
        """A passage inside its document's text, with up to `around` characters before and after it.

        `version`: as another version than the live one had it, if that is kept. `session`: to which its document is attached.
        """
        given: dict[str, int | str | None] = {"around": around, "version": version, "session": session}
        params = {name: value for name, value in given.items() if value is not None}
        answer = self._transport.call("GET", _path("/v1/passages", passage_id), params=params)
        return PassageView.parse(answer.json())

    def _ask(self, path: str, query: str | None, body: Mapping[str, Any], wishes: Wishes) -> Any:
        given = {name: value for name, value in {"query": query, **wishes}.items() if value is not None}
        body = {**body, **given}
        return self._transport.call("POST", path, json=body, repeatable=True).json()
