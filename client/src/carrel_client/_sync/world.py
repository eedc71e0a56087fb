"""What threads do their own way, and an event loop another: pauses, files, and work side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def run(work: Callable[[], R]) -> R:
    return work()


def side_by_side(work: Callable[[T], R], items: Iterable[T], parallel: int) -> Generator[R, None, None]:
    """What `work` makes of each item, as it comes, of `parallel` at a time. Closed, it waits for what is under way."""
    coming, running = iter(items), set[Future[R]]()
    with ThreadPoolExecutor(parallel) as pool:
        while True:
            while len(running) < parallel and (item := next(coming, None)) is not None:
                running.add(pool.submit(work, item))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
