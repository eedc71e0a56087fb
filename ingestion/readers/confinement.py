"""What a child gives up before it sees a document, through the kernel's own calls, and what of that the kernel took.

Four layers, each of which stands without the others: namespaces of its own (once, for all children), Landlock, no
further file descriptor, and seccomp with a list of what reading takes. Everything a reader needs is loaded before.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
from dataclasses import dataclass

CONFINEMENT = "confinement"  #: asked for in place of a media type: what is in force in a child

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, _PR_SET_NO_NEW_PRIVS = 22, 2, 38
_NEW_IPC, _NEW_USER, _NEW_NET = 0x08000000, 0x10000000, 0x40000000

_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446  # the same number on every machine
_ASK_VERSION = 1
#: By version: how many rights to files there are (bits from 0), to TCP (bind, connect), and scopes (abstract sockets, signals).
_LANDLOCK_RIGHTS = ((1, 13, 0, 0), (2, 14, 0, 0), (3, 15, 0, 0), (4, 15, 2, 0), (5, 16, 2, 0), (6, 16, 2, 2))

#: Memory, the two open descriptors, time, and the end. Names as in the kernel's tables: x86_64, aarch64.
ALLOWED = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_yield": (24, 124),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "gettimeofday": (96, 169),
    "clock_gettime": (228, 113),
    "futex": (202, 98),
    "getrandom": (318, 278),
    "restart_syscall": (219, 128),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  #: as the kernel's audit calls them, and the column above
_LOAD, _EQUALS, _RETURN = 0x20, 0x15, 0x06  # of BPF
_AT_CALL, _AT_MACHINE = 0, 4  # in seccomp_data
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | 1  # EPERM


@dataclass(frozen=True, slots=True)
class Confinement:
    """What is in force in a child, by the kernel's answers."""

    namespaces: bool
    landlock: int  #: its version, 0 for none
    seccomp: bool

    def __str__(self) -> str:
        layers = {
            "seccomp": self.seccomp,
            f"Landlock {self.landlock}": self.landlock,
            "network namespace": self.namespaces,
        }
        return ", ".join(name for name, stands in layers.items() if stands) or "resource limits only"

    def remains(self) -> list[str]:
        """What a parser that was taken over could do, or what keeps it from that alone, where a layer is missing."""
        found = []
        if not self.seccomp:
            more = "" if self.landlock else ", run programs, and signal and trace the service's processes"
            found.append(f"no seccomp: it can start processes{more}")
        if not self.landlock:
            alone = "seccomp alone keeps it from files" if self.seccomp else "it can delete and rename files, not open them"
            found.append(f"no Landlock: {alone}")
        if not self.namespaces:
            alone = "seccomp keeps" if self.seccomp else "only the limit on open files keeps"
            found.append(f"no namespaces: {alone} it from the network")
        return found


def leave_namespaces() -> bool:
    """A network without interfaces, and no rights of the machine's root. For this process and its children."""
    return any(_libc.unshare(flags | _NEW_NET | _NEW_IPC) == 0 for flags in (_NEW_USER, 0))


def confine(*, namespaces: bool) -> Confinement:
    """For good. The descriptors that are open stay so."""
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0)))
    landlock = _landlock()
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))  # of new ones; Landlock needed one
    return Confinement(namespaces, landlock, _seccomp())


def _landlock() -> int:
    """Deny all it can deny, with no exception; return its version."""
    version = _libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), _ASK_VERSION)
    if version < 1:
        return 0
    _, files, tcp, scopes = _LANDLOCK_RIGHTS[min(version, len(_LANDLOCK_RIGHTS)) - 1]
    rights = struct.pack("=QQQ", *((1 << bits) - 1 for bits in (files, tcp, scopes)))
    size = 24 if scopes else 16 if tcp else 8
    ruleset = _libc.syscall(_LANDLOCK_CREATE, rights, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return 0
    refused = _libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0)
    os.close(ruleset)
    return 0 if refused else int(version)


def _seccomp() -> bool:
    if platform.machine() not in _MACHINES:
        return False
    code = seccomp_program()
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HP", len(code) // 8, ctypes.addressof(buffer))
    return bool(_libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), program) == 0)


def seccomp_program() -> bytes:
    """Whatever is not allowed is refused with EPERM, calls of the future included; another machine's calls end the child."""
    audit_name, column = _MACHINES[platform.machine()]
    numbers = [pair[column] for pair in ALLOWED.values()]
    steps = [(_LOAD, 0, 0, _AT_MACHINE), (_EQUALS, 1, 0, audit_name), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _AT_CALL)]
    steps += [(_EQUALS, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
    steps += [(_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
