"""Dify's requests, as its documentation shows them, against a running service."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from api.routes.dify import scores_of
from tests.properties.test_packing import passage
from tests.support import Service

SETTING = {"top_k": 5, "score_threshold": 0.0}


def _ask(service: Service, key: str, **fields: Any) -> httpx2.Response:
    body = {"knowledge_id": "default", "query": "oak shelf", "retrieval_setting": SETTING, **fields}
    return httpx2.post(f"{service.url}/retrieval", json=body, headers={"Authorization": f"Bearer {key}"})


@pytest.fixture(scope="module")
def keys(shared_quick_service: Service) -> list[str]:
    found = []
    for _ in range(2):
        name, client = shared_quick_service.tenant()
        for number in range(3):
            attributes = {"year": 2020 + number, "kind": "notice" if number else "policy"}
            text = f"Shelf {number} of {name} is oak."
            client.documents.create(text=text, external_id=f"d{number}", title="Shelves", attributes=attributes).wait(
                timeout_s=60
            )
        found.append(shared_quick_service.key(name, "query"))
    return found


def _condition(operator: str, value: Any = None, name: str | list[str] = "year") -> dict[str, Any]:
    conditions = [{"name": name, "comparison_operator": operator, "value": value}]
    return {"logical_operator": "and", "conditions": conditions}


def _either(*conditions: dict[str, Any]) -> dict[str, Any]:
    return {"logical_operator": "or", "conditions": [each["conditions"][0] for each in conditions]}


def test_records_have_what_dify_shows(quick: Service, keys: list[str]) -> None:
    records = _ask(quick, keys[0]).raise_for_status().json()["records"]
    assert len(records) == 3
    for record in records:
        assert record.keys() == {"content", "score", "title", "metadata"}
        assert 0 <= record["score"] <= 1
        assert record["metadata"]["document_id"].startswith("doc_")
    assert _ask(quick, keys[0], retrieval_setting={"top_k": 1, "score_threshold": 0}).json()["records"] == records[:1]
    least = records[1]["score"]
    chosen = _ask(quick, keys[0], retrieval_setting={"top_k": 5, "score_threshold": least}).json()["records"]
    assert chosen == [record for record in records if record["score"] >= least]


@pytest.mark.parametrize(
    ("condition", "years"),
    [
        (_condition("=", 2021), {2021}),
        (_condition("≠", 2021), {2020, 2022}),
        (_condition(">", 2020), {2021, 2022}),
        (_condition("≤", 2021), {2020, 2021}),
        (_condition("is", "policy", "kind"), {2020}),
        (_condition("in", ["policy"], ["kind"]), {2020}),
        (_condition("not empty"), {2020, 2021, 2022}),
        (_condition("empty"), set()),
        ({"conditions": []}, {2020, 2021, 2022}),
        (
            {
                "logical_operator": "or",
                "conditions": [*_condition("=", 2020)["conditions"], *_condition("=", 2022)["conditions"]],
            },
            {2020, 2022},
        ),
    ],
)
def test_conditions_choose_by_attributes(quick: Service, keys: list[str], condition: dict[str, Any], years: set[int]) -> None:
    records = _ask(quick, keys[0], metadata_condition=condition).raise_for_status().json()["records"]
    assert {record["metadata"]["year"] for record in records} == years


def test_scores_are_of_one_scale() -> None:
    found = [passage("a", relevance=0.4, score=0.9), passage("b", score=0.8)]
    assert scores_of(found) == [0.4, 0.0]
    assert scores_of([passage("a", score=0.9), passage("b", score=7.5)]) == [0.9, 1.0]


def test_what_is_wrong_is_refused(quick: Service, keys: list[str]) -> None:
    assert _ask(quick, keys[0], knowledge_id="no-such").status_code == 404
    assert _ask(quick, keys[0], metadata_condition=_condition("contains", "o", "kind")).status_code == 422
    assert _ask(quick, keys[0], query="").status_code == 422
    assert _ask(quick, "wrong").status_code == 401
    mine, theirs = (_ask(quick, key).json()["records"] for key in keys)
    assert not {record["content"] for record in mine} & {record["content"] for record in theirs}
