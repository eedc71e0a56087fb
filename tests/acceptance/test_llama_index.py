"""The LlamaIndex adapter: its retriever in a query engine, and its reader, against a running service."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core import get_response_synthesizer
from llama_index.core.base.llms.types import CompletionResponse
from llama_index.core.llms.mock import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine

from api.contract.answers import _PASSAGE
from carrel_client import Carrel
from carrel_client.answers import QueryResult
from carrel_client.llama_index import CarrelReader, CarrelRetriever, _nodes
from tests.support import Service

TEXTS = {"keys": "The keys of the hall hang behind the door.", "lamps": "The lamps of the hall are lit at dusk."}


class Answering(MockLLM):
    """Repeats what it was asked with."""

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=prompt)

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=prompt)


@pytest.fixture
def params(quick: Service) -> dict[str, Any]:
    name, carrel = quick.tenant()
    for external_id, text in TEXTS.items():
        carrel.documents.create(text=text, external_id=external_id, title=external_id, attributes={"floor": 1}).wait()
    return {"api_key": quick.key(name), "base_url": quick.url}


async def test_a_query_engine_answers_from_passages(quick: Service, params: dict[str, Any]) -> None:
    retriever = CarrelRetriever(top_k=1, collections=["default"], **params)
    synthesizer = get_response_synthesizer(llm=Answering())
    engine = RetrieverQueryEngine(retriever, response_synthesizer=synthesizer)
    for answer in (engine.query("where do the keys hang?"), await engine.aquery("where do the keys hang?")):
        [found] = answer.source_nodes
        assert found.text == TEXTS["keys"]
        assert TEXTS["keys"] in str(answer)
        assert "passage_id" not in str(answer)  # what is for programs is not shown to the model
        assert found.metadata["carrel"]["external_id"] == "keys"
    [(_, other)] = [quick.tenant()]
    assert CarrelRetriever(client=other).retrieve("where do the keys hang?") == []


def test_scores_of_one_answer_are_of_one_scale() -> None:
    """By relevance where there is one; what words alone have found has none."""

    def scores(*relevances: float | None) -> list[float | None]:
        passages = [{**_PASSAGE, "score": 0.9, "relevance": each} for each in relevances]
        return [node.score for node in _nodes(QueryResult.parse({"passages": passages, "usage": {}, "timings_ms": {}}))]

    assert (scores(0.3, None), scores(None, None), scores()) == ([0.3, 0.0], [0.9, 0.9], [])


async def test_a_reader_reads_a_collection(quick: Service, params: dict[str, Any]) -> None:
    with Carrel(**params) as carrel:
        reader = CarrelReader(client=carrel, **params)
        for documents in (reader.load_data(), await reader.aload_data(), list(await reader.alazy_load_data())):
            assert {document.id_: document.text for document in documents} == TEXTS
            assert {document.metadata["floor"] for document in documents} == {1}
