"""A cursor goes on with its own caller's list and filters; everything else is refused alike and tells nothing."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from api.cursors import Cursor, CursorSeal, Limit
from api.problems import install_handlers
from config.errors import InvalidInput

SEAL, OTHER = CursorSeal(bytes(32)), CursorSeal(b"x" * 32)
ITEMS = [f"doc_{number:02}" for number in range(7)]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_a_cursor_opens_with_the_same_words_only(position: str, bound_to: str) -> None:
    cursor = SEAL.seal(position, bound_to=bound_to)
    assert SEAL.open(cursor, bound_to=bound_to) == position
    for seal, words in ((SEAL, bound_to + "x"), (OTHER, bound_to)):
        with pytest.raises(InvalidInput):
            seal.open(cursor, bound_to=words)


@given(st.text() | st.binary().map(lambda noise: base64.urlsafe_b64encode(noise).rstrip(b"=").decode()))
def test_nothing_that_was_not_sealed_opens(forged: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        SEAL.open(forged, bound_to="x")
    assert refused.value.field == "after"


def test_every_other_spelling_is_refused() -> None:
    cursor = SEAL.seal("doc_1", bound_to="x")
    others = {cursor[:place] + letter + cursor[place + 1 :] for place in range(len(cursor)) for letter in "AQgw_-+/=.\n "}
    others |= {cursor[:end] for end in range(len(cursor))} | {cursor + end for end in ("=", "==", "A", "\n", " ")}
    for other in others - {cursor}:
        with pytest.raises(InvalidInput):
            SEAL.open(other, bound_to="x")


Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """Two lists, asked as a tenant or as an operator."""
    app = FastAPI()
    app.state.services = SimpleNamespace(cursors=SEAL)
    install_handlers(app)

    @app.middleware("http")
    async def identify(request: Request, call_next: Any) -> Any:
        tenant = request.headers.get("tenant")
        request.state.identity = SimpleNamespace(tenant=tenant and SimpleNamespace(tenant_id=tenant))
        return await call_next(request)

    def page(cursor: Cursor, limit: Limit = 3) -> dict[str, Any]:
        found = [item for item in ITEMS if cursor.position is None or item > cursor.position][:limit]
        return {"data": found, "next": cursor.next(found[-1] if len(found) == limit else None)}

    app.get("/one", operation_id="one")(page)
    app.get("/two", operation_id="two")(page)
    app.get("/under/{parent}", operation_id="under")(page)

    with TestClient(app) as client:

        def ask(path: str = "/one", *, tenant: str | None = "a", **params: Any) -> Any:
            return client.get(path, params=params, headers={"tenant": tenant} if tenant else {})

        yield ask


@pytest.mark.parametrize("path", ["/one", "/two", "/under/x"])
@pytest.mark.parametrize("tenant", ["a", "b", None])
def test_pages_follow_each_other_to_the_end(ask: Ask, path: str, tenant: str | None) -> None:
    seen, after, pages = [], None, 0
    for limit in (3, 1, 2, 3):  # the size of a page may change
        page = ask(path, tenant=tenant, limit=limit, kind="x", **({"after": after} if after else {})).json()
        seen, after, pages = seen + page["data"], page["next"], pages + 1
    assert (seen, after, pages) == (ITEMS, None, 4)


def test_a_cursor_of_anything_else_is_refused_and_all_refusals_are_equal(ask: Ask) -> None:
    mine = ask(kind="x").json()["next"]
    foreign = [
        ask(tenant="b", kind="x", after=mine),
        ask(tenant=None, kind="x", after=mine),
        ask(tenant="operator", kind="x", after=mine),
        ask("/two", kind="x", after=mine),
        ask(kind="y", after=mine),
        ask(after=mine),
        ask(kind=["x", "y"], after=mine),
        ask("/under/x", after=ask("/under/y").json()["next"]),
        ask(tenant="operator", after=ask(tenant=None).json()["next"]),
        ask(kind="x", after="doc_03"),
        ask(kind="x", after=mine[:-1]),
        ask(kind="x", after=""),
        ask(kind="x", after="\0"),
        ask(kind="x", after="x" * 10_000),
    ]
    assert {response.status_code for response in foreign} == {422}
    assert len({response.text for response in foreign}) == 1
    assert (foreign[0].json()["code"], foreign[0].json()["field"]) == ("invalid_input", "after")
    assert ask(kind="x", after=mine).json()["data"] == ITEMS[3:6]


def test_the_order_of_filters_does_not_matter(ask: Ask) -> None:
    assert ask(kind="x", state="y", after=ask(state="y", kind="x").json()["next"]).json()["data"] == ITEMS[3:6]


def test_the_position_is_not_visible(ask: Ask) -> None:
    first, second = (ask().json()["next"] for _ in range(2))
    assert first != second
    raw = base64.urlsafe_b64decode(first + "=" * (-len(first) % 4))
    assert b"doc" not in raw
    assert "doc" not in first
