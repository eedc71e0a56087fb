"""What the adapters share: the clients that one works with, and what is told of a passage beside its text."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from carrel_client._async.client import AsyncCarrel
from carrel_client._sync.client import Carrel
from carrel_client.answers import Passage


class Clients:
    """Those that were given, or own ones by key and URL.

    An own one for threads ends with the adapter, one for an event loop with each call: its connections are of no use to the
    next loop, and nobody tells an adapter that a loop ends. Who asks often gives one, and closes it.
    """

    def __init__(
        self, client: Carrel | None, async_client: AsyncCarrel | None, *, api_key: str | None, base_url: str | None
    ) -> None:
        self._client, self._async_client, self._key, self._url = client, async_client, api_key, base_url

    @property
    def threads(self) -> Carrel:
        if self._client is None:
            self._client = Carrel(api_key=self._key, base_url=self._url)
            weakref.finalize(self, self._client.close)
        return self._client

    @asynccontextmanager
    async def loop(self) -> AsyncIterator[AsyncCarrel]:
        if self._async_client is not None:
            yield self._async_client
            return
        async with AsyncCarrel(api_key=self._key, base_url=self._url) as carrel:
            yield carrel


def told_of(passage: Passage) -> dict[str, Any]:
    """The document's attributes, title and source, and under "carrel" what a citation needs."""
    names = ("document_id", "external_id", "version", "collection", "start", "end", "first_page", "last_page", "relevance")
    own = {"passage_id": passage.id, **{name: getattr(passage, name) for name in names}}
    own |= {"url": passage.url, "warnings": passage.warnings}
    return {"title": passage.title, "source": passage.source, **passage.attributes, "carrel": own}


def relevances(passages: Sequence[Passage]) -> list[float] | None:
    """Of each, on one scale: of what words alone have found no relevance is known, and it counts as 0, as `min_relevance`
    has it. None where the model's was not measured."""
    if all(passage.relevance is None for passage in passages):
        return None
    return [passage.relevance or 0.0 for passage in passages]
