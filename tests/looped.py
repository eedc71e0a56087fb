"""The asynchronous client behind the face of the synchronous one, so that what is asked of one is asked of both."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import httpx2

from carrel_client import AsyncCarrel, Carrel

WORLDS = ("threads", "loop")
PATIENCE_S = 10.0


class Looped:
    """Runs what it hands on to its end in a loop; nouns are such things too."""

    def __init__(self, target: object, loop: asyncio.Runner) -> None:
        self._target, self._loop = target, loop

    def __getattr__(self, name: str) -> Any:
        return self._of(getattr(self._target, name))

    def _of(self, value: Any) -> Any:
        if inspect.isroutine(value):
            return lambda *positional, **named: self._of(value(*positional, **named))
        if inspect.isawaitable(value):
            return self._of(self._run(value))
        if hasattr(value, "__anext__"):
            return self._each(value)
        own = type(value).__module__.startswith("carrel_client._async")
        return Looped(value, self._loop) if own else value

    def _run(self, awaitable: Any) -> Any:
        async def run() -> Any:
            return await awaitable

        return self._loop.run(run())

    def _each(self, values: Any) -> Iterator[Any]:
        try:
            while True:
                try:
                    value = self._run(anext(values))
                except StopAsyncIteration:
                    return
                yield value
        finally:
            self._run(values.aclose())


@contextmanager
def client_of(world: str, url: str, *, key: str = "carrel_key_x", timeout_s: float = PATIENCE_S) -> Iterator[Carrel]:
    """A client of a world ("threads" or "loop"), with the face of the synchronous one."""
    if world == "threads":
        with Carrel(api_key=key, base_url=f"{url}/", timeout_s=timeout_s) as carrel:
            yield carrel
        return
    with asyncio.Runner() as loop:
        looped = Looped(AsyncCarrel(api_key=key, base_url=f"{url}/", timeout_s=timeout_s), loop)
        yield cast(Carrel, looped)
        looped.close()


@contextmanager
def client_over(world: str, wire: httpx2.MockTransport) -> Iterator[Carrel]:
    """The same, whose requests end in a function."""
    if world == "threads":
        with httpx2.Client(transport=wire) as http, Carrel(api_key="x", base_url="http://carrel", http=http) as carrel:
            yield carrel
        return
    with asyncio.Runner() as loop:
        http = httpx2.AsyncClient(transport=wire)
        yield cast(Carrel, Looped(AsyncCarrel(api_key="x", base_url="http://carrel", http=http), loop))
        loop.run(http.aclose())
