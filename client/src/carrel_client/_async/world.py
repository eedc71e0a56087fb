"""What an event loop does its own way, and threads another: pauses, files, and work side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def run(work: Callable[[], R]) -> R:
    """What waits for a disk, beside the loop."""
    return await asyncio.to_thread(work)


async def side_by_side(work: Callable[[T], Awaitable[R]], items: Iterable[T], parallel: int) -> AsyncGenerator[R, None]:
    """What `work` makes of each item, as it comes, of `parallel` at a time. Closed, it cancels what is under way."""

    async def one(item: T) -> R:
        return await work(item)

    coming, running = iter(items), set[asyncio.Task[R]]()
    try:
        while True:
            while len(running) < parallel and (item := next(coming, None)) is not None:
                running.add(asyncio.create_task(one(item)))
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
