"""What a benchmark found, with the machine it ran on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOAD_AT_START = os.getloadavg()[0]  #: before the benchmark added its own

Figures = dict[str, float]
Peer = dict[str, float | str]  #: its version and figures, or why it was not measured, as `skipped`


@dataclass(frozen=True)
class Report:
    benchmark: str
    figures: Figures
    peers: dict[str, Peer] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {"benchmark": self.benchmark, "figures": self.figures, "peers": self.peers, "machine": machine()}

    def table(self) -> str:
        width = max(map(len, self.figures))
        lines = [f"{name:{width}}  {value:.4g}" for name, value in self.figures.items()]
        peers = [_peer_line(name, peer) for name, peer in self.peers.items()]
        found = machine()
        head = f"{self.benchmark} on {found['cpu']}, {found['cores']} cores, load {found['load_at_start']:.1f}"
        return "\n".join([head, *lines, *peers])


def _peer_line(name: str, peer: Peer) -> str:
    parts = (f"{key} {value if isinstance(value, str) else format(value, '.4g')}" for key, value in peer.items())
    return f"{name}: {', '.join(parts)}"


def machine() -> dict[str, Any]:
    """With the load of the minute before: it tells a figure taken on a busy machine from one taken on a quiet one."""
    cpu = next((line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor())
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_at_start": LOAD_AT_START,
        "python": platform.python_version(),
        "system": platform.system(),
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
