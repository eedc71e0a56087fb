"""How long the stages of a question took."""

from __future__ import annotations

import time


class Stopwatch:
    def __init__(self) -> None:
        self._last, self._laps = time.perf_counter(), dict[str, float]()

    def lap(self, stage: str) -> None:
        """What passed since the last one belongs to this stage; a stage that is run again adds up."""
        now = time.perf_counter()
        self._laps[stage] = self._laps.get(stage, 0.0) + now - self._last
        self._last = now

    def each(self) -> dict[str, float]:
        """Milliseconds by stage."""
        return {stage: round(seconds * 1000, 3) for stage, seconds in self._laps.items()}

    def total(self, **groups: tuple[str, ...]) -> dict[str, float]:
        """Milliseconds of several stages together, by the names given to them."""
        return {name: round(sum(self._laps.get(stage, 0.0) for stage in of) * 1000, 3) for name, of in groups.items()}
