"""LlamaIndex on Carrel: a retriever and a reader. `pip install 'carrel-client[llama-index]'`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.readers.base import BaseReader
from llama_index.core.schema import Document, NodeWithScore, QueryBundle, TextNode

from carrel_client._async.client import AsyncCarrel
from carrel_client._sync.client import Carrel
from carrel_client.adapting import Clients, relevances, told_of
from carrel_client.answers import QueryResult
from carrel_client.models import Document as Stored

OWN = ["carrel"]  # metadata for programs, that no model is shown


class CarrelRetriever(BaseRetriever):
    """Passages as nodes with scores; what a citation needs is in the metadata under "carrel".

    `client` and `async_client` are used, and closed by whoever made them; without, own ones by `api_key` and `base_url`.
    `wishes` as `Carrel.query` takes them: filter, diversity, min_relevance, …

    Example: `engine = RetrieverQueryEngine.from_args(CarrelRetriever(api_key="carrel_key_…", top_k=3), llm=llm)`
    """

    def __init__(
        self,
        *,
        client: Carrel | None = None,
        async_client: AsyncCarrel | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        collections: list[str] | None = None,
        top_k: int = 4,
        **wishes: Any,
    ) -> None:
        super().__init__()
        self._clients = Clients(client, async_client, api_key=api_key, base_url=base_url)
        self._asked: dict[str, Any] = {"collections": collections, "top_k": top_k, **wishes}

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _nodes(self._clients.threads.query(query_bundle.query_str, **self._asked))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        async with self._clients.loop() as carrel:
            return _nodes(await carrel.query(query_bundle.query_str, **self._asked))


def _nodes(result: QueryResult) -> list[NodeWithScore]:
    shown = {"excluded_llm_metadata_keys": OWN, "excluded_embed_metadata_keys": OWN}
    scores = relevances(result.passages) or [passage.score for passage in result.passages]
    return [
        NodeWithScore(node=TextNode(id_=passage.id, text=passage.text, metadata=told_of(passage), **shown), score=score)
        for passage, score in zip(result.passages, scores, strict=True)
    ]


class CarrelReader(BaseReader):
    """The documents of a collection with their whole texts, one by one.

    Example: `documents = CarrelReader(api_key="carrel_key_…").load_data("handbook")`
    """

    def __init__(
        self,
        *,
        client: Carrel | None = None,
        async_client: AsyncCarrel | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
    ) -> None:
        self._clients = Clients(client, async_client, api_key=api_key, base_url=base_url)

    def lazy_load_data(self, collection: str = "default") -> Iterable[Document]:
        """Those that are live, oldest first, as they are fetched.

        Example: `for document in reader.lazy_load_data("handbook"): print(document.metadata["title"])`
        """
        carrel = self._clients.threads
        for stored in carrel.documents.list(collection=collection):
            if stored.state == "live":
                yield _document(stored, carrel.documents.text(stored.id))

    async def alazy_load_data(self, collection: str = "default") -> Iterable[Document]:
        """`aload_data`: an event loop has no iterable to give that waits.

        Example: `documents = await reader.alazy_load_data("handbook")`
        """
        return await self.aload_data(collection)

    async def aload_data(self, collection: str = "default") -> list[Document]:
        """All of them at once.

        Example: `documents = await reader.aload_data("handbook")`
        """
        async with self._clients.loop() as carrel:
            live = [one async for one in carrel.documents.list(collection=collection) if one.state == "live"]
            return [_document(stored, await carrel.documents.text(stored.id)) for stored in live]


def _document(stored: Stored, text: str) -> Document:
    own = {"document_id": stored.id, "version": stored.version, "collection": stored.collection}
    told = {"title": stored.title, "source": stored.source, **stored.attributes, "carrel": own}
    shown = {"excluded_llm_metadata_keys": OWN, "excluded_embed_metadata_keys": OWN}
    return Document(doc_id=stored.external_id, text=text, metadata=told, **shown)
