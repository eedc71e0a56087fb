"""A provider's answers: vectors in order, whole and of unit length, or the failure that says what to do."""

from __future__ import annotations

import base64
import datetime as dt
import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import CarrelError, ModelUnavailable, ProviderRefused
from rag.embedding.remote.answers import failure_of, retry_after_s, vectors_of
from rag.embedding.remote.batches import halves, plan
from rag.embedding.remote.failures import Broken, Pressed, TooMuch

NOW = dt.datetime(2026, 3, 10, 12, 0, 0, tzinfo=dt.UTC)


def answer(*items: dict[str, Any]) -> bytes:
    return json.dumps({"data": list(items)}).encode()


def item(index: int, embedding: Any) -> dict[str, Any]:
    return {"index": index, "embedding": embedding}


@given(
    rows=st.integers(1, 6).flatmap(
        lambda width: st.lists(
            st.lists(st.floats(-(2.0**50), 2.0**50, width=32), min_size=width, max_size=width).filter(
                lambda row: max(map(abs, row)) > 0.1
            ),
            min_size=1,
            max_size=5,
        )
    ),
    order=st.randoms(use_true_random=False),
    encoded=st.booleans(),
)
def test_vectors_come_in_the_order_of_the_texts_and_of_unit_length(rows: list[list[float]], order: Any, encoded: bool) -> None:
    def shown(row: list[float]) -> Any:
        return base64.b64encode(np.asarray(row, "<f4").tobytes()).decode() if encoded else row

    items = [item(place, shown(row)) for place, row in enumerate(rows)]
    order.shuffle(items)
    found = vectors_of(answer(*items), len(rows), len(rows[0]))
    exact = np.asarray(rows, np.float64)
    np.testing.assert_allclose(found, exact / np.linalg.norm(exact, axis=1, keepdims=True), atol=2e-6)
    assert found.dtype == np.float32


def test_answers_without_indexes_are_in_the_order_of_the_texts() -> None:
    body = json.dumps({"data": [{"embedding": [1, 0]}, {"embedding": [0, 2]}]}).encode()
    assert vectors_of(body, 2, 2).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'{"data": null}',
        b'{"data": [1, 2]}',
        b'{"data": {"a": 1, "b": 2}}',
        b"[" * 100_000,
        answer(item(0, [1.0, 2.0])),
        answer(item(0, [1.0, 2.0]), item(0, [1.0, 2.0])),
        answer(item(0, [1.0, 2.0]), item(2, [1.0, 2.0])),
        answer(item(0, [1.0, 2.0]), item(1, [1.0, 2.0]), item(2, [1.0, 2.0])),
        answer(item(0, [1.0, 2.0]), item(1, [1.0])),
        answer(item(0, [1.0, 2.0]), item(1, [0.0, 0.0])),
        answer(item(0, [1.0, 2.0]), item(1, [1.0, float("nan")])),
        answer(item(0, [1.0, 2.0]), item(1, [1.0, float("inf")])),
        answer(item(0, [1.0, 2.0]), item(1, [1e300, 1.0])),
        answer(item(0, [1.0, 2.0]), item(1, [1e30, 1.0])),
        answer(item(0, [1.0, 2.0]), item(1, [1e-40, 0.0])),
        answer(item(0, [1.0, 2.0]), item(1, "AAAA")),
        answer(item(0, [1.0, 2.0]), item(1, "no base64!")),
        answer(item(0, [1.0, 2.0]), item(1, "é")),
        answer(item(0, [1.0, 2.0]), item(1, [[1.0], [2.0]])),
        answer(item(0, [1.0, 2.0]), item(1, [1.0, "x"])),
        answer(item(0, [1.0, 2.0]), item(1, None)),
        answer(item(0, [1.0, 2.0]), {"index": 1}),
        answer(item(0, [1.0, 2.0]), {"index": None, "embedding": [1.0, 2.0]}),
        answer(item(0, [1.0, 2.0]), {"index": float("inf"), "embedding": [1.0, 2.0]}),
        answer(item(0, [1.0, 2.0]), item(1, [10**400, 1.0])),
    ],
)
def test_what_is_no_answer_is_broken(body: bytes) -> None:
    with pytest.raises(Broken):
        vectors_of(body, 2, 2)


def test_wider_vectors_are_cut_and_narrower_ones_refused() -> None:
    assert vectors_of(answer(item(0, [3.0, 4.0, 5.0])), 1, 2).tolist() == [pytest.approx([0.6, 0.8])]
    with pytest.raises(ModelUnavailable, match="CARREL_EMBEDDING_DIMENSIONS to 3"):
        vectors_of(answer(item(0, [3.0, 4.0, 5.0])), 1, 4)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "Tue, 10 Mar 2026 12:00:30 GMT"}, 30),
        ({"retry-after": "Tue, 10 Mar 2026 11:00:00 GMT"}, 0),
        ({"retry-after": "Tue, 10 Mar 2026 12:00:30 -0000"}, 30),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Tue, 10 Mar 99999999999 12:00:30 GMT"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "5", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "5", "retry-after-ms": "?"}, 5),
    ],
)
def test_the_wish_to_wait_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, now=NOW) == seconds


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, {}, Pressed),
        (429, {"error": {"type": "insufficient_quota"}}, ModelUnavailable),
        (408, {}, Broken),
        (409, {}, Broken),
        (500, {}, Broken),
        (529, {}, Broken),
        (413, {}, TooMuch),
        (400, {"error": {"message": "This model's maximum context length is 8192 tokens"}}, TooMuch),
        (400, {"error": {"code": "max_tokens_per_request"}}, TooMuch),
        (422, {"error": "batch size 64 > maximum allowed batch size 32", "error_type": "Validation"}, TooMuch),
        (400, {"message": "input is too long"}, TooMuch),
        (400, {}, ProviderRefused),
        (422, {"detail": [{"msg": "x"}]}, ProviderRefused),
        (401, {}, ModelUnavailable),
        (403, {}, ModelUnavailable),
        (404, {}, ModelUnavailable),
        (301, {}, ModelUnavailable),
        (402, {}, ProviderRefused),
        (204, {}, ProviderRefused),
    ],
)
def test_a_status_says_what_to_do(status: int, body: object, kind: type[Exception]) -> None:
    assert type(failure_of(status, {}, json.dumps(body).encode(), now=NOW)) is kind


def test_timeouts_of_the_provider_count_as_silence() -> None:
    for status, timed_out in ((408, True), (504, True), (500, False)):
        failure = failure_of(status, {"retry-after": "3"}, b"", now=NOW)
        assert isinstance(failure, Broken)
        assert (failure.timed_out, failure.retry_after_s) == (timed_out, 3)


@given(status=st.integers(100, 599).filter(lambda status: status != 200), said=st.text(min_size=3))
def test_what_a_provider_writes_is_not_repeated(status: int, said: str) -> None:
    secret = f"<{said}>"
    for body in ({"error": {"message": secret, "code": secret, "type": secret}}, {"error": secret}, secret, [secret]):
        failure = failure_of(status, {}, json.dumps(body).encode(), now=NOW)
        assert secret not in str(failure)
        assert isinstance(failure, CarrelError | Broken | Pressed | TooMuch)


@given(tokens=st.lists(st.integers(0, 50), max_size=60), count=st.integers(1, 10), most=st.integers(1, 100))
def test_batches_hold_every_text_once_in_order_within_both_limits(tokens: list[int], count: int, most: int) -> None:
    batches = plan(tokens, count=count, most_tokens=most)
    assert [place for batch in batches for place in batch] == list(range(len(tokens)))
    for batch in batches:
        assert 1 <= len(batch) <= count
        assert len(batch) == 1 or sum(tokens[place] for place in batch) <= most
    for batch, following in itertools.pairwise(batches):  # none could have taken one more
        assert len(batch) == count or sum(tokens[place] for place in [*batch, following[0]]) > most


@given(size=st.integers(2, 50))
def test_halves_are_the_whole(size: int) -> None:
    left, right = halves(range(size))
    assert [*left, *right] == list(range(size))
    assert abs(len(left) - len(right)) <= 1
