"""LangChain on Carrel: a vector store, a retriever and a history of chats. `pip install 'carrel-client[langchain]'`."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from pydantic import Field, PrivateAttr, SecretStr

import carrel_client._async.world as in_loop
import carrel_client._sync.world as in_threads
from carrel_client._async.client import AsyncCarrel
from carrel_client._sync.client import Carrel
from carrel_client.adapting import Clients, relevances, told_of
from carrel_client.answers import Passage, QueryResult
from carrel_client.errors import NotFoundError, error_for
from carrel_client.langchain_history import CarrelChatMessageHistory
from carrel_client.models import BulkResult
from carrel_client.models import Document as Stored

__all__ = ["CarrelChatMessageHistory", "CarrelRetriever", "CarrelVectorStore"]

PARALLEL = 8


class CarrelVectorStore(VectorStore):
    """A collection. The service embeds, so no `embedding` is used, and nothing is searched by a vector of yours.

    `client` and `async_client` are used, and closed by whoever made them; without, own ones by `api_key` and `base_url`
    (or CARREL_API_KEY and CARREL_URL). Ids are external ids, metadata are attributes: up to 16 strings, numbers and booleans.

    Example: `store = CarrelVectorStore("handbook", api_key="carrel_key_…")`
    """

    def __init__(
        self,
        collection: str = "default",
        *,
        client: Carrel | None = None,
        async_client: AsyncCarrel | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout_s: float = 600.0,
    ) -> None:
        self.collection, self._timeout_s = collection, timeout_s
        self._clients = Clients(client, async_client, api_key=api_key, base_url=base_url)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> CarrelVectorStore:
        """A store with these texts; `kwargs` are its own. `embedding` is not used.

        Example: `store = CarrelVectorStore.from_texts(["Pens stay outside."], collection="handbook")`
        """
        store = cls(**kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> CarrelVectorStore:
        """`from_texts` for an event loop.

        Example: `store = await CarrelVectorStore.afrom_texts(["Pens stay outside."], collection="handbook")`
        """
        store = cls(**kwargs)
        await store.aadd_texts(texts, metadatas, ids=ids)
        return store

    def add_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        """Their ids, once all can be found; one with a known id replaces it. Raise APIError for one that is
        refused, JobFailedError for one that cannot be read.

        Example: `store.add_documents([Document("Pens stay outside.", id="pens")])`
        """
        carrel, names = self._clients.threads, _names(documents, kwargs.get("ids"))
        lines = self._lines(documents, names)
        jobs = [job_id for one in carrel.documents.bulk(lines) if (job_id := _job_of(one)) is not None]
        for _ in carrel.jobs.wait_all(jobs, timeout_s=self._timeout_s, parallel=PARALLEL):
            pass
        return names

    async def aadd_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        """`add_documents` for an event loop.

        Example: `await store.aadd_documents([Document("Pens stay outside.", id="pens")])`
        """
        names = _names(documents, kwargs.get("ids"))
        lines = self._lines(documents, names)
        async with self._clients.loop() as carrel:
            jobs = [job_id async for one in carrel.documents.bulk(lines) if (job_id := _job_of(one)) is not None]
            async for _ in carrel.jobs.wait_all(jobs, timeout_s=self._timeout_s, parallel=PARALLEL):
                pass
        return names

    def _lines(self, documents: Sequence[Document], names: Sequence[str]) -> Iterable[Mapping[str, Any]]:
        """Of several with one id, the last."""
        lines = {name: (document.page_content, document.metadata) for name, document in zip(names, documents, strict=True)}
        for name, (text, metadata) in lines.items():
            yield {"text": text, "external_id": name, "attributes": metadata, "collection": self.collection}

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Gone from every answer when this returns; all documents of the collection without `ids`. Unknown ids are no error.

        Example: `store.delete(["pens"])`
        """
        carrel = self._clients.threads

        def one(document: Stored) -> None:
            with suppress(NotFoundError):
                carrel.documents.delete(document.id)

        found = carrel.documents.list(collection=self.collection, external_ids=ids)
        for _ in in_threads.side_by_side(one, found, PARALLEL):
            pass
        return True

    async def adelete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """`delete` for an event loop.

        Example: `await store.adelete(["pens"])`
        """
        async with self._clients.loop() as carrel:

            async def one(document: Stored) -> None:
                with suppress(NotFoundError):
                    await carrel.documents.delete(document.id)

            found = [each async for each in carrel.documents.list(collection=self.collection, external_ids=ids)]
            async with aclosing(in_loop.side_by_side(one, found, PARALLEL)) as ended:
                async for _ in ended:
                    pass
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Documents with their whole texts, in the order of `ids`; unknown ids are left out.

        Example: `[pens] = store.get_by_ids(["pens"])`
        """
        carrel = self._clients.threads

        def one(stored: Stored) -> Document:
            return _whole(stored, carrel.documents.text(stored.id))

        found = (each for each in carrel.documents.list(collection=self.collection, external_ids=ids) if each.state == "live")
        return _ordered(ids, in_threads.side_by_side(one, found, PARALLEL))

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """`get_by_ids` for an event loop.

        Example: `[pens] = await store.aget_by_ids(["pens"])`
        """
        async with self._clients.loop() as carrel:

            async def one(stored: Stored) -> Document:
                return _whole(stored, await carrel.documents.text(stored.id))

            listed = carrel.documents.list(collection=self.collection, external_ids=ids)
            found = [each async for each in listed if each.state == "live"]
            async with aclosing(in_loop.side_by_side(one, found, PARALLEL)) as documents:
                return _ordered(ids, [document async for document in documents])

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Passages, best first, with the ids and metadata of their documents. `kwargs` as `Carrel.query` takes them.

        Example: `store.similarity_search("who may enter?", k=2, filter={"key": "year", "op": "gte", "value": 2020})`
        """
        return [_found(passage) for passage in self._ask(query, k, kwargs).passages]

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """`similarity_search` for an event loop.

        Example: `await store.asimilarity_search("who may enter?", k=2)`
        """
        return [_found(passage) for passage in (await self._aask(query, k, kwargs)).passages]

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        """With the score of each: higher is better, and comparable within one answer only.

        Example: `[(document, score)] = store.similarity_search_with_score("who may enter?", k=1)`
        """
        return [(_found(passage), passage.score) for passage in self._ask(query, k, kwargs).passages]

    async def asimilarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        """`similarity_search_with_score` for an event loop.

        Example: `[(document, score)] = await store.asimilarity_search_with_score("who may enter?", k=1)`
        """
        return [(_found(passage), passage.score) for passage in (await self._aask(query, k, kwargs)).passages]

    def _similarity_search_with_relevance_scores(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        return _relevant(self._ask(query, k, kwargs).passages)

    async def _asimilarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        return _relevant((await self._aask(query, k, kwargs)).passages)

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Passages unlike each other, chosen by the service, out of up to 100: `fetch_k` is not used.

        Example: `store.max_marginal_relevance_search("loans", k=3)`
        """
        return self.similarity_search(query, k, **{**kwargs, "diversity": {"mmr": lambda_mult}})

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """`max_marginal_relevance_search` for an event loop.

        Example: `await store.amax_marginal_relevance_search("loans", k=3)`
        """
        return await self.asimilarity_search(query, k, **{**kwargs, "diversity": {"mmr": lambda_mult}})

    def _ask(self, query: str, k: int, wishes: Mapping[str, Any]) -> QueryResult:
        return self._clients.threads.query(query, top_k=k, **{"collections": [self.collection], **wishes})

    async def _aask(self, query: str, k: int, wishes: Mapping[str, Any]) -> QueryResult:
        async with self._clients.loop() as carrel:
            return await carrel.query(query, top_k=k, **{"collections": [self.collection], **wishes})


def _names(documents: Sequence[Document], ids: Sequence[str] | None) -> list[str]:
    given = [document.id for document in documents] if ids is None else list(ids)
    if len(given) != len(documents):
        raise ValueError(f"{len(documents)} documents came with {len(given)} ids.")
    return [name or uuid.uuid4().hex for name in given]


def _job_of(result: BulkResult) -> str | None:
    if result.problem is not None:
        raise error_for(result.status, result.problem, None)
    return result.job_id


def _whole(stored: Stored, text: str) -> Document:
    return Document(text, id=stored.external_id, metadata=stored.attributes)


def _found(passage: Passage) -> Document:
    return Document(passage.text, id=passage.external_id, metadata=passage.attributes)


def _ordered(ids: Sequence[str], documents: Iterable[Document]) -> list[Document]:
    by_id = {document.id: document for document in documents}
    return [by_id[name] for name in dict.fromkeys(ids) if name in by_id]


def _relevant(passages: Sequence[Passage]) -> list[tuple[Document, float]]:
    known = relevances(passages)
    if known is None and passages:
        raise ValueError("What scores of the service's embedding model mean was not measured; ask for scores instead.")
    return [(_found(passage), relevance) for passage, relevance in zip(passages, known or (), strict=True)]


class CarrelRetriever(BaseRetriever):
    """Passages with what a citation needs, in the metadata under "carrel": ids, offsets, pages, relevance and a URL.

    Example: `retriever = CarrelRetriever(api_key="carrel_key_…", k=3, collections=["handbook"])`
    """

    client: Carrel | None = None
    async_client: AsyncCarrel | None = None
    api_key: SecretStr | None = None
    base_url: str | None = None
    collections: list[str] | None = None
    k: int = 4
    filter: dict[str, Any] | None = None
    wishes: dict[str, Any] = Field(default_factory=dict, description="More of what `Carrel.query` takes.")
    _clients: Clients = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        key = None if self.api_key is None else self.api_key.get_secret_value()
        self._clients = Clients(self.client, self.async_client, api_key=key, base_url=self.base_url)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return _cited(self._clients.threads.query(query, **self._asked(kwargs)))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        async with self._clients.loop() as carrel:
            return _cited(await carrel.query(query, **self._asked(kwargs)))

    def _asked(self, given: Mapping[str, Any]) -> Any:
        asked = {"collections": self.collections, "filter": self.filter, "k": self.k, **self.wishes, **given}
        return {"top_k": asked.pop("k"), **asked}


def _cited(result: QueryResult) -> list[Document]:
    return [Document(passage.text, id=passage.id, metadata=told_of(passage)) for passage in result.passages]
