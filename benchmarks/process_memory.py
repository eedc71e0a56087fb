"""What the processes of a service hold, as the kernel counts it. Reads /proc, so it is for Linux only."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness import BenchmarkError

PROC = Path("/proc")
KIB_PER_MB = 1e6 / 1024
#: A word of the command line of each process of a service, and what the process is called.
SERVICE_PROCESSES = {
    "serve": "supervisor",
    "engine": "engine",
    "worker": "worker",
    "api": "api",
    "ingestion.readers.zygote": "parsers",
}


def tree(pid: int) -> dict[int, list[str]]:
    """The process and everything below it, each with its arguments."""
    found = {pid: _arguments(pid)}
    for child in _children(pid):
        found |= tree(child)
    return found


def find_process(pid: int, word: str) -> int:
    """The process below `pid` that has `word` among its arguments."""
    for found, arguments in tree(pid).items():
        if word in arguments:
            return found
    raise BenchmarkError(f"No {word!r} runs below process {pid}.")


def pss_by_process(pid: int) -> dict[str, float]:
    """`pss_mb` for each process of a service, by the name that its command line has."""
    found = dict.fromkeys(SERVICE_PROCESSES.values(), 0.0)
    for each, arguments in tree(pid).items():
        name = next((name for word, name in SERVICE_PROCESSES.items() if word in arguments), "other")
        found[name] = found.get(name, 0.0) + _rollup(each, "Pss") / KIB_PER_MB
    return found


def pss_mb(pid: int) -> float:
    """Of the whole tree. A page that several processes share counts once in all, so the sum is what the machine gives."""
    return sum(_rollup(each, "Pss") for each in tree(pid)) / KIB_PER_MB


def anonymous_mb(pid: int) -> float:
    """Of one process, without files that are mapped: those pages can be dropped and read again."""
    return _rollup(pid, "Anonymous") / KIB_PER_MB


def _rollup(pid: int, name: str) -> int:
    """KiB of one line of smaps_rollup; nothing of a process that has ended meanwhile."""
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def _children(pid: int) -> list[int]:
    try:
        return [
            int(child) for task in (PROC / str(pid) / "task").iterdir() for child in (task / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _arguments(pid: int) -> list[str]:
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []
