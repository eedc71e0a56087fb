"""The LangChain adapter passes LangChain's own standard suites against a running service, and says what they do not ask."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests

from api.contract.answers import _PASSAGE
from carrel_client import AsyncCarrel, Carrel, InvalidRequestError, NotFoundError
from carrel_client.answers import Passage
from carrel_client.langchain import CarrelChatMessageHistory, CarrelRetriever, CarrelVectorStore, _relevant
from tests.support import Service


@pytest.fixture(scope="module")
def mine(shared_quick_service: Service) -> Iterator[tuple[str, str]]:
    """A tenant's name and key."""
    name, _ = shared_quick_service.tenant()
    yield name, shared_quick_service.key(name)
    shared_quick_service.close_clients()


@pytest.fixture
def empty(quick: Service, mine: tuple[str, str]) -> CarrelVectorStore:
    carrel = quick.client(mine[1])
    return CarrelVectorStore(
        carrel.collections.create(name=f"c{uuid.uuid4().hex}").name, client=carrel, api_key=mine[1], base_url=quick.url
    )


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, empty: CarrelVectorStore) -> CarrelVectorStore:
        return empty


LAMPS = [f"Lamp {number} hangs in the hall." for number in range(4)]


@pytest.fixture(scope="module")
def params(shared_quick_service: Service, mine: tuple[str, str]) -> dict[str, Any]:
    params = {"api_key": mine[1], "base_url": shared_quick_service.url}
    CarrelVectorStore(**params).add_texts(LAMPS, [{"number": number} for number in range(4)])
    return params


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _take(self, params: dict[str, Any]) -> None:
        self.params = params

    @property
    def retriever_constructor(self) -> type[CarrelRetriever]:
        return CarrelRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return self.params

    @property
    def retriever_query_example(self) -> str:
        return "which lamp hangs in the hall?"


def test_a_retriever_says_what_a_citation_needs(quick: Service, params: dict[str, Any]) -> None:
    [found] = CarrelRetriever(k=1, filter={"key": "number", "op": "eq", "value": 2}, **params).invoke("lamp in the hall")
    own = found.metadata["carrel"]
    assert (found.page_content, found.metadata["number"]) == (LAMPS[2], 2)
    carrel = quick.client(params["api_key"])
    assert carrel.documents.text(own["document_id"])[own["start"] : own["end"]] == LAMPS[2]
    assert params["api_key"] not in repr(CarrelRetriever(**params))


def test_a_store_is_its_tenants_alone(quick: Service, params: dict[str, Any]) -> None:
    _, other = quick.tenant()
    theirs = CarrelVectorStore(client=other)
    assert theirs.similarity_search("lamp") == []
    other.documents.create(text="Elsewhere.", external_id="elsewhere").wait()
    mine = CarrelVectorStore(**params)
    assert mine.get_by_ids(["elsewhere"]) == []
    assert mine.delete(["elsewhere"])
    assert [document.id for document in theirs.get_by_ids(["elsewhere", "none"])] == ["elsewhere"]


def test_what_cannot_be_kept_is_refused(empty: CarrelVectorStore) -> None:
    with pytest.raises(InvalidRequestError, match="attributes"):
        empty.add_documents([Document("x", metadata={"nested": {"a": 1}})])
    with pytest.raises(ValueError, match="2 ids"):
        empty.add_documents([Document("x")], ids=["a", "b"])
    with pytest.raises(NotFoundError):
        CarrelVectorStore("missing", client=empty._clients.threads).get_by_ids(["x"])


def test_of_several_documents_with_one_id_the_last_is_kept(empty: CarrelVectorStore) -> None:
    assert empty.add_texts(["first", "second"], ids=["a", "a"]) == ["a", "a"]
    assert [document.page_content for document in empty.get_by_ids(["a", "a"])] == ["second"]


def test_searches_take_what_questions_take(empty: CarrelVectorStore) -> None:
    empty.add_texts(["red lamp", "red lamps", "blue door"], [{"n": 1}, {"n": 2}, {"n": 3}])
    above = {"key": "n", "op": "gte", "value": 2}
    [(best, score), (_, lower)] = empty.similarity_search_with_score("red lamps", filter=above)
    assert best.metadata == {"n": 2}
    assert score > lower
    assert len(empty.as_retriever(search_type="mmr", search_kwargs={"k": 2}).invoke("lamp")) == 2
    with pytest.raises(ValueError, match="not measured"):
        empty.similarity_search_with_relevance_scores("red lamp")  # of the model of tests
    assert empty.delete()
    assert empty.similarity_search("red lamp") == []


def test_what_words_alone_have_found_is_answered_with_the_relevance_of_the_others() -> None:
    measured, by_words = (Passage.parse({**_PASSAGE, "relevance": each}) for each in (0.8, None))
    assert [score for _, score in _relevant([by_words, measured])] == [0.0, 0.8]
    assert _relevant([]) == []
    with pytest.raises(ValueError, match="not measured"):
        _relevant([by_words])


async def test_a_given_client_serves_all_calls(quick: Service, params: dict[str, Any]) -> None:
    async with AsyncCarrel(**params) as carrel:
        store = CarrelVectorStore(async_client=carrel)
        both = await asyncio.gather(store.asimilarity_search("lamp", k=2), store.asimilarity_search("hall", k=3))
        assert [len(found) for found in both] == [2, 3]
        assert await carrel.alive()  # it is not closed with a call


SAID: list[BaseMessage] = [
    SystemMessage("You lend books."),
    HumanMessage("How long may I keep a book?", name="Ann"),
    AIMessage("", tool_calls=[{"name": "search", "args": {"query": "loans"}, "id": "call_1", "type": "tool_call"}]),
    ToolMessage("four weeks", tool_call_id="call_1", artifact={"pages": [3]}),
    AIMessage([{"type": "text", "text": "Four weeks."}], id="msg_1", additional_kwargs={"cited": [1]}),
]


async def test_a_history_keeps_messages_as_they_are(quick: Service) -> None:
    tenant, _ = quick.tenant()
    ways = {"api_key": quick.key(tenant, "query", "converse"), "base_url": quick.url}
    history = CarrelChatMessageHistory.begin(subject="ann", title="Loans", **ways)
    history.add_messages(SAID)
    history.add_user_message("And maps?")
    expected = [*SAID, HumanMessage("And maps?")]
    assert history.messages == await history.aget_messages() == expected
    with Carrel(**ways) as carrel:
        turns = list(carrel.sessions.turns(history.session_id))
        assert [turn.role for turn in turns] == ["system", "user", "assistant", "tool", "assistant", "user"]
        assert turns[4].content == "Four weeks."  # what is said can be searched as text
        carrel.sessions.say(history.session_id, "assistant", "They stay here.")
        assert history.messages[-1] == AIMessage("They stay here.")
        before = history.session_id
        await history.aclear()
        assert history.messages == []
        with pytest.raises(NotFoundError):  # it is erased
            carrel.sessions.get(before)
        await history.aadd_messages([HumanMessage("x")] * 150)
        assert len(history.messages) == 150
        assert carrel.sessions.get(history.session_id).title == "Loans"
        history.clear()
        assert await CarrelChatMessageHistory(history.session_id, **ways).aget_messages() == []
    other, _ = quick.tenant()
    stranger = CarrelChatMessageHistory(history.session_id, api_key=quick.key(other, "query", "converse"), base_url=quick.url)
    with pytest.raises(NotFoundError):
        _ = stranger.messages
