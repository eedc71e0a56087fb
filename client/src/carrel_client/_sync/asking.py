"""Questions: passages, contexts packed from them, and a passage in its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from carrel_client._sync.transport import Transport
from carrel_client.answers import Context, PassageView, QueryResult
from carrel_client.asking import Wishes
from carrel_client.exchange import path_of as _path


class Asking:
    """What `Carrel` can ask."""

    _transport: Transport

    def query(self, query: str, *, top_k: int = 10, **wishes: Unpack[Wishes]) -> QueryResult:
        """Find the passages that answer `query`, best first.

        Example: `result = carrel.query("who may enter the map room?", top_k=3)`
        """
        return QueryResult.parse(self._ask("/v1/query", query, {"top_k": top_k}, wishes))

    def context(
        self,
        query: str,
        *,
        max_tokens: int = 2000,
        tokenizer: str = "o200k_base",
        top_k: int = 20,
        **wishes: Unpack[Wishes],
    ) -> Context:
        """The passages that answer `query` as one text for a language model, of at most `max_tokens`, with citations.

        `tokenizer`: "o200k_base", "cl100k_base", or "embedding", that of the service's embedding model.

        Example: `context = carrel.context("who may enter the map room?", max_tokens=1000)`
        """
        body = {"max_tokens": max_tokens, "tokenizer": tokenizer, "top_k": top_k}
        return Context.parse(self._ask("/v1/context", query, body, wishes))

    def passage(self, passage_id: str, *, around: int = 500, version: int | None = None) -> PassageView:
        """A passage inside its document's text, with up to `around` characters before and after it.

        `version`: as another version than the live one had it, if that is kept.

        Example: `view = carrel.passage(passage.id, around=200)`
        """
        params = {"around": around, **({} if version is None else {"version": version})}
        answer = self._transport.call("GET", _path("/v1/passages", passage_id), params=params)
        return PassageView.parse(answer)

    def _ask(self, path: str, query: str, body: Mapping[str, Any], wishes: Wishes) -> Any:
        given = {name: value for name, value in wishes.items() if value is not None}
        body = {"query": query, **body, **given}
        return self._transport.call("POST", path, json=body, repeatable=True)
