"""How sides are compared: in turns within one run, with medians, so that a machine that slows down slows all of them."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

T = TypeVar("T")
R = TypeVar("R")

Side = Callable[[int], R]  #: one repeat of one side, given the number of its round


class BenchmarkError(Exception):
    """What was measured did not do its work, so its time says nothing."""


def alternate(sides: Mapping[str, Side[R]], repeats: int) -> dict[str, list[R]]:
    """Run every side once a round; every other round in reverse order, so that no side always follows the same one."""
    results: dict[str, list[R]] = {name: [] for name in sides}
    names = list(sides)
    for number in shown(range(repeats), "rounds", repeats):
        for name in names if number % 2 == 0 else reversed(names):
            results[name].append(sides[name](number))
    return results


def median(values: Iterable[float]) -> float:
    return float(statistics.median(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear between the two nearest ranks."""
    return float(np.percentile(np.asarray(values), percent))


def pairwise(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Median of the ratios within each round: what slows a whole round cancels out."""
    return median(above / below for above, below in zip(numerators, denominators, strict=True))


def shown(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """The items, with a bar on standard error while a person watches it."""
    console = Console(stderr=True)
    return iter(track(items, label, total=total, console=console, transient=True, disable=not sys.stderr.isatty()))


def in_parallel(work: Callable[[T], R], items: Sequence[T], *, threads: int, label: str) -> list[R]:
    """Results in the order of the items; the first failure is raised."""
    with ThreadPoolExecutor(threads) as pool:
        return list(shown(pool.map(work, items), label, len(items)))
