"""The process that forks one child a document. Started with an empty environment and no open files but its channel.

Readers are imported once, here; a child is a fork of about 5 ms that the kernel limits (address space, CPU, wall time,
written files), and that dies with this process, which ends when the worker closes the channel. A native parser
that aborts takes only its child with it. The child speaks JSON, never pickle.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import sys
from dataclasses import asdict

from ingestion.readers import registry
from ingestion.readers.base import CannotRead, Order, Parsed

PR_SET_PDEATHSIG = 1
MAX_MESSAGE = 4096


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    _die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the kernel
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        message, descriptors, _flags, _address = socket.recv_fds(channel, MAX_MESSAGE, 2)
        if not message:
            return
        if os.fork() == 0:
            channel.close()
            _child(Order(**json.loads(message)), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _child(order: Order, source: int, answer: int) -> None:
    try:
        _die_with_parent()
        _limit(order)
        outcome = _read(order, source)
        with os.fdopen(answer, "wb") as pipe:
            pipe.write(json.dumps(outcome, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    finally:
        os._exit(0)  # nothing of the parent's clean-up may run here


def _read(order: Order, source: int) -> dict[str, object]:
    try:
        with os.fdopen(source, "rb") as file:
            parsed: Parsed = registry.read(file.read(), order.media_type, max_chars=order.max_chars)
        return {"parsed": asdict(parsed)}
    except CannotRead as error:
        return {"refused": str(error)}
    except (MemoryError, RecursionError) as error:
        return {"refused": f"The document needs more resources than reading may take ({type(error).__name__})."}
    except Exception as error:  # noqa: BLE001  whatever a parser raises is the document's failure, not the service's
        return {"refused": f"The document is damaged ({type(error).__name__})."}


def _limit(order: Order) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (order.memory_bytes, order.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (order.seconds, order.seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    signal.setitimer(signal.ITIMER_REAL, order.seconds)  # SIGALRM's default action ends the process


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
