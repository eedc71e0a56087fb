"""The process that forks one child a document. Started with an empty environment and no open files but its channel.

Readers are imported once, here, those of office files with the first of them. A child is a fork that the kernel limits
(address space, CPU, wall time, written files), that gives up everything but its two descriptors before it reads, and that
dies with this process, which ends when the worker closes the channel. A native parser that aborts takes only its child
with it. The child speaks JSON, never pickle.
"""

from __future__ import annotations

import _strptime  # type: ignore[import-not-found]  # noqa: F401  as the next two: what the standard library imports when it is called
import codecs
import contextlib
import ctypes
import email.generator  # noqa: F401
import encodings
import heapq  # noqa: F401
import json
import os
import pkgutil
import resource
import signal
import socket
import sys
from dataclasses import asdict

from ingestion.media import BINARY
from ingestion.readers import confinement, registry
from ingestion.readers.base import PAGE_READ, CannotRead, Order, Parsed
from ingestion.readers.confinement import CONFINEMENT

PR_SET_PDEATHSIG = 1
MAX_MESSAGE = 4096


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    load_codecs()
    namespaces = confinement.leave_namespaces()
    _die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the kernel
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        message, descriptors, _flags, _address = socket.recv_fds(channel, MAX_MESSAGE, 2)
        if not message:
            return
        order = Order(**json.loads(message))
        registry.load(order.media_type)
        if os.fork() == 0:
            channel.close()
            _child(order, *descriptors, namespaces=namespaces)
        for descriptor in descriptors:
            os.close(descriptor)


def _child(order: Order, source: int, answer: int, *, namespaces: bool) -> None:
    try:
        _die_with_parent()
        _limit(order)
        confined = confinement.confine(namespaces=namespaces)
        outcome = {"confinement": asdict(confined)} if order.media_type == CONFINEMENT else _read(order, source, answer)
        _write(answer, json.dumps(outcome, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    finally:
        os._exit(0)  # nothing of the parent's clean-up may run here


def _write(answer: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(answer, left) :]


def _read(order: Order, source: int, answer: int) -> dict[str, object]:
    try:
        size = os.lseek(source, 0, os.SEEK_END)
        os.lseek(source, 0, os.SEEK_SET)
        content = os.read(source, size)  # at once: where memory is short, it fails before anything is read
        parsed: Parsed = registry.read(
            content,
            order.media_type,
            max_chars=order.max_chars,
            page_read=lambda: _write(answer, PAGE_READ),
            outlined=order.outlined,
        )
        return {"parsed": asdict(parsed)}
    except CannotRead as error:
        return {"refused": str(error)}
    except (MemoryError, RecursionError) as error:
        return {"refused": f"The document needs more resources than reading may take ({type(error).__name__})."}
    except Exception as error:  # noqa: BLE001  whatever a parser raises is the document's failure, not the service's
        kind = BINARY.get(order.media_type, "document")
        return {"refused": f"The {kind} is damaged ({type(error).__name__}); open it, save it again and send that."}


def _limit(order: Order) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (order.memory_bytes, order.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (order.seconds, order.seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # where seccomp is missing; root is not bound by it
    signal.setitimer(signal.ITIMER_REAL, order.seconds)  # SIGALRM's default action ends the process


def load_codecs() -> None:
    """A child can import nothing any more: 25 ms and 2 MB."""
    for module in pkgutil.iter_modules(encodings.__path__):
        with contextlib.suppress(LookupError):  # of other systems, and what is no codec
            codecs.lookup(module.name)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
