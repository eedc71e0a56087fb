"""What the OpenAI SDK's types name is offered, as far as the documentation says."""

from __future__ import annotations

import pytest

from tests.openai_conformance import METHODS, PAGE, Count, counted, methods, page_with_table

LEAST = {"vector stores": 95.0, "files": 95.0, "embeddings": 100.0}


@pytest.fixture(scope="module")
def counts() -> dict[str, Count]:
    return counted()


def test_the_documented_table_is_current() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert page_with_table(written) == written, "run `python -m tests.openai_conformance`"


@pytest.mark.parametrize("resource", LEAST)
def test_enough_is_offered(counts: dict[str, Count], resource: str) -> None:
    count = counts[resource]
    assert count.share >= LEAST[resource], count.missing


@pytest.mark.parametrize("resource", METHODS)
def test_no_method_is_left_out_of_the_count(resource: str) -> None:
    assert set(methods(resource.replace(" ", "_"))) == set(METHODS[resource])
