"""What a benchmark found, with the machine it ran on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Report:
    benchmark: str
    figures: dict[str, float]
    peers: dict[str, dict[str, float]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {"benchmark": self.benchmark, "figures": self.figures, "peers": self.peers, "machine": machine()}

    def table(self) -> str:
        width = max(map(len, self.figures))
        lines = [f"{name:{width}}  {value:.4g}" for name, value in self.figures.items()]
        return "\n".join([f"{self.benchmark} on {machine()['cpu']}, {machine()['cores']} cores", *lines])


def machine() -> dict[str, Any]:
    cpu = next((line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor())
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
