"""Collections: making them, and choosing how their documents are processed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from carrel_client._async.transport import AsyncTransport, pages
from carrel_client.evaluation import Tunings
from carrel_client.exchange import path_of
from carrel_client.models import Collection, Profile


class AsyncCollections:
    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        *,
        name: str,
        profile: str | None = None,
        near_duplicates: str | None = None,
        near_threshold: float | None = None,
        semantic_cache: bool | None = None,
        semantic_threshold: float | None = None,
        keep_versions_days: int | None = None,
        attributes: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Collection:
        """`profile` None is `standard`. `near_duplicates`: "keep" (None), "link" or "skip" what is that similar to another.

        `semantic_cache`: answer a question as another one was that is near to it, from `semantic_threshold` on.
        `keep_versions_days`: how long replaced versions can be asked for, with `as_of`. `attributes`: kinds of documents'
        attributes by key, "string", "number", "bool" or "datetime"; those of others are inferred.

        Example: `await carrel.collections.create(name="handbook", profile="precise")`
        """
        options = {
            "profile": profile,
            "near_duplicates": near_duplicates,
            "near_threshold": near_threshold,
            "semantic_cache": semantic_cache,
            "semantic_threshold": semantic_threshold,
            "keep_versions_days": keep_versions_days,
            "attributes": None if attributes is None else dict(attributes),
        }
        body = {"name": name, **_given(options)}
        answer = await self._transport.call("POST", "/v1/collections", json=body, idempotency_key=idempotency_key)
        return Collection.parse(answer)

    async def update(
        self,
        name: str,
        *,
        profile: str | None = None,
        near_duplicates: str | None = None,
        near_threshold: float | None = None,
        semantic_cache: bool | None = None,
        semantic_threshold: float | None = None,
        keep_versions_days: int | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> Collection:
        """What is given holds from now on; documents that were brought keep their chunks and attributes.

        `attributes` of the keys that are named; "inferred" takes back what was declared.

        Example: `await carrel.collections.update("handbook", profile="standard")`
        """
        options = {
            "profile": profile,
            "near_duplicates": near_duplicates,
            "near_threshold": near_threshold,
            "semantic_cache": semantic_cache,
            "semantic_threshold": semantic_threshold,
            "keep_versions_days": keep_versions_days,
            "attributes": None if attributes is None else dict(attributes),
        }
        answer = await self._transport.call("PATCH", path_of("/v1/collections", name), json=_given(options))
        return Collection.parse(answer)

    async def delete(self, name: str) -> Collection:
        """One that has no documents left; ConflictError else.

        Example: `await carrel.collections.delete("handbook")`
        """
        return Collection.parse(await self._transport.call("DELETE", path_of("/v1/collections", name)))

    async def tuning(self, name: str) -> Tunings:
        """What it is and was tuned to.

        Example: `print((await carrel.collections.tuning("handbook")).parameters)`
        """
        return Tunings.parse(await self._transport.call("GET", path_of("/v1/collections", name, "tuning")))

    async def tune(
        self, name: str, *, parameters: Mapping[str, Any], replaces: int, figures: Mapping[str, float] | None = None
    ) -> Tunings:
        """`parameters`: `dense_weight`, `boosts` and `recency`, as a query takes them. `replaces`: the version that is active;
        ConflictError if it is another one.

        Example: `await carrel.collections.tune("handbook", parameters={"dense_weight": 0.6}, replaces=0)`
        """
        body = {"parameters": dict(parameters), "replaces": replaces, "figures": None if figures is None else dict(figures)}
        return Tunings.parse(await self._transport.call("PUT", path_of("/v1/collections", name, "tuning"), json=body))

    async def roll_back(self, name: str, *, version: int) -> Tunings:
        """To what was active before this version; ConflictError if it is not the active one.

        Example: `await carrel.collections.roll_back("handbook", version=2)`
        """
        path = path_of("/v1/collections", name, "tuning")
        return Tunings.parse(await self._transport.call("DELETE", path, params={"version": version}))

    async def profiles(self) -> list[Profile]:
        """All that a collection can have.

        Example: `names = [profile.name for profile in await carrel.collections.profiles()]`
        """
        answer = await self._transport.call("GET", "/v1/profiles")
        return [Profile.parse(item) for item in answer["data"]]

    async def list(self, *, page_size: int = 100) -> AsyncIterator[Collection]:
        """All of them, fetched page by page.

        Example: `names = [collection.name async for collection in carrel.collections.list()]`
        """
        async for item in pages(self._transport, "/v1/collections", page_size):
            yield Collection.parse(item)


def _given(options: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}
