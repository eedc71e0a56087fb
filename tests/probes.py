"""A zygote whose reader of plain text is a parser that was taken over: it tries what it is told and answers what happened.

Run as a script, with `confined` or `bare` as first argument; `bare` is the control that shows what an attempt does when
nothing stands against it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import sqlite3
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ingestion.media import TEXT
from ingestion.readers import confinement, registry, zygote
from ingestion.readers.base import Parsed

_libc = ctypes.CDLL(None, use_errno=True)
_PTRACE_ATTACH, _PTRACE_DETACH = 16, 17
_CALLS = {"x86_64": {"process_vm_readv": 310, "io_uring_setup": 425, "bpf": 321}}
_CALLS["aarch64"] = {"process_vm_readv": 270, "io_uring_setup": 425, "bpf": 280}


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _wait(child: int) -> None:
    with contextlib.suppress(ChildProcessError):  # reaped by the kernel
        os.waitpid(child, 0)


def _connect(family: int, address: Any) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(2)
        client.connect(address)


def _database(given: dict[str, Any]) -> None:
    with sqlite3.connect(f"file:{given['database']}?mode=ro", uri=True) as connection:
        connection.execute("SELECT secret FROM keys").fetchone()


def _start_program(given: dict[str, Any]) -> None:
    _wait(os.posix_spawn("/bin/true", ["/bin/true"], {}))


def _fork(given: dict[str, Any]) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    _wait(child)


def _become_program(given: dict[str, Any]) -> None:
    """A program that does not exist: that it was looked for is enough."""
    try:
        os.execve("/nonexistent/program", ["program"], {})
    except FileNotFoundError:
        return


def _trace(given: dict[str, Any]) -> None:
    _checked(_libc.ptrace(_PTRACE_ATTACH, given["victim"], None, None))
    os.waitpid(given["victim"], 0x40000000)  # __WALL
    _libc.ptrace(_PTRACE_DETACH, given["victim"], None, None)


def _read_memory(given: dict[str, Any]) -> None:
    into = ctypes.create_string_buffer(8)
    local = (ctypes.c_void_p * 2)(ctypes.addressof(into), 8)
    remote = (ctypes.c_void_p * 2)(given["address"], 8)
    number = _CALLS[os.uname().machine]["process_vm_readv"]
    _checked(_libc.syscall(number, given["victim"], local, ctypes.c_ulong(1), remote, ctypes.c_ulong(1), ctypes.c_ulong(0)))


def _thread(given: dict[str, Any]) -> None:
    import _thread  # noqa: PLC0415

    _thread.start_new_thread(lambda: None, ())


def _resource_limit(given: dict[str, Any]) -> None:
    import resource  # noqa: PLC0415

    resource.setrlimit(resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE))


ATTEMPTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "read the database": _database,
    "read a file": lambda given: Path(given["file"]).read_bytes(),
    "look at a file": lambda given: os.stat(given["file"]),
    "list the data directory": lambda given: os.listdir(given["folder"]),
    "write a file": lambda given: open(os.path.join(given["folder"], "written"), "w").close(),
    "delete a file": lambda given: os.unlink(given["spare"]),
    "read another process's environment": lambda given: Path(f"/proc/{given['victim']}/environ").read_bytes(),
    "connect by TCP": lambda given: _connect(socket.AF_INET, ("127.0.0.1", given["port"])),
    "connect to the engine's socket": lambda given: _connect(socket.AF_UNIX, given["socket"]),
    "listen": lambda given: socket.create_server(("127.0.0.1", 0)).close(),
    "make a pair of sockets": lambda given: [end.close() for end in socket.socketpair()],
    "fork": _fork,
    "start a program": _start_program,
    "become a program": _become_program,
    "signal another process": lambda given: os.kill(given["victim"], signal.SIGCONT),
    "trace another process": _trace,
    "read another process's memory": _read_memory,
    "start a thread": _thread,
    "change a limit": _resource_limit,
    "make an io_uring": lambda given: os.close(_checked(_libc.syscall(425, 4, ctypes.create_string_buffer(120)))),
}


def _taken_over(content: bytes, max_chars: int) -> Parsed:
    given = json.loads(content)
    happened = {}
    for name in given["attempts"]:
        try:
            ATTEMPTS[name](given)
            happened[name] = "done"
        except (OSError, RuntimeError, ValueError, sqlite3.Error) as error:
            happened[name] = type(error).__name__
    return Parsed(json.dumps(happened))


def _outer_filter(refused: list[int]) -> None:
    """As an old kernel or a strict container has it: these calls are unknown to everybody from here on."""
    steps = [(0x20, 0, 0, 0)]  # load the call's number
    for number in refused:
        steps += [(0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | 38)]  # ENOSYS
    code = b"".join(struct.pack("=HBBI", *step) for step in [*steps, (0x06, 0, 0, 0x7FFF0000)])
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HP", len(code) // 8, ctypes.addressof(buffer))
    _libc.prctl(38, *map(ctypes.c_ulong, (1, 0, 0, 0)))
    _checked(_libc.prctl(22, ctypes.c_ulong(2), program))


if __name__ == "__main__":
    how = sys.argv.pop(1)
    if how == "bare":
        zygote.confinement.confine = lambda *, namespaces: confinement.Confinement(namespaces, 0, False)  # type: ignore[assignment]
        zygote.confinement.leave_namespaces = lambda: False
        zygote._limit = lambda order: None
    elif how.startswith("without:"):
        _outer_filter(json.loads(how.removeprefix("without:")))
    registry.READERS[TEXT] = _taken_over
    zygote.main()
