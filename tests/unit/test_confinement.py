"""A parser that was taken over reaches nothing: tried from inside a real child. What a kernel lacks is said."""

from __future__ import annotations

import json
import platform
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from ingestion.media import TEXT
from ingestion.readers.base import Order, Parsed
from ingestion.readers.confinement import ALLOWED, Confinement
from ingestion.sandbox import ParserDied, Sandbox, _parsed
from tests.probes import ATTEMPTS

MIB = 1024 * 1024
PROBES = Path(__file__).parents[1] / "probes.py"
LANDLOCK = [444, 445, 446]
SECCOMP = {"x86_64": [157, 317], "aarch64": [167, 277]}.get(platform.machine(), [])  # prctl and seccomp
UNSHARE = {"x86_64": [272], "aarch64": [97]}.get(platform.machine(), [])
WHOLE = Confinement(namespaces=True, landlock=1, seccomp=True)

VICTIM = """
import ctypes, sys
kept = ctypes.create_string_buffer(b"secret!")
print(ctypes.addressof(kept), flush=True)
sys.stdin.read()
"""


def _sandbox(how: str) -> Sandbox:
    return Sandbox(seconds=20, memory_bytes=512 * MIB, max_chars=MIB, command=(sys.executable, "-I", str(PROBES), how))


@pytest.fixture
def given(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Something to reach of each kind, outside the sandbox."""
    database = tmp_path / "carrel.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE keys (secret)")
    for name in ("file", "spare"):
        (tmp_path / name).write_text("secret")
    victim = subprocess.Popen([sys.executable, "-c", VICTIM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as engine, victim:
        engine.bind(f"{short}/engine.sock")
        engine.listen()
        assert victim.stdout is not None
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield {
                "attempts": [*ATTEMPTS],
                "folder": str(tmp_path),
                "database": str(database),
                "file": str(tmp_path / "file"),
                "spare": str(tmp_path / "spare"),
                "socket": f"{short}/engine.sock",
                "port": listener.getsockname()[1],
                "victim": victim.pid,
                "address": int(victim.stdout.readline()),
            }
        victim.kill()


def _happened(how: str, given: dict[str, Any]) -> dict[str, str]:
    path = Path(given["folder"]) / "document"
    path.write_text(json.dumps(given))
    with closing(_sandbox(how)) as sandbox:
        found: dict[str, str] = json.loads(sandbox.read(path, TEXT).text)
    return found


#: What a process may do to others depends on the machine, bare as it is: Yama, containers.
MAY_BE_REFUSED = {"trace another process", "read another process's memory", "make an io_uring"}


def test_the_attempts_succeed_where_nothing_stands_against_them(given: dict[str, Any]) -> None:
    happened = _happened("bare", given)
    assert {name for name, outcome in happened.items() if outcome != "done"} <= MAY_BE_REFUSED
    assert not Path(given["spare"]).exists()


def test_a_child_reaches_nothing(given: dict[str, Any]) -> None:
    happened = _happened("confined", given)
    assert [*happened] == [*ATTEMPTS]
    assert {name for name, outcome in happened.items() if outcome == "done"} == set()
    assert not (Path(given["folder"]) / "written").exists()


def test_every_layer_is_in_force_on_this_kernel() -> None:
    with closing(_sandbox("confined")) as sandbox:
        found = sandbox.confinement()
    version = tuple(map(int, platform.release().split("-")[0].split(".")[:2]))
    assert found.seccomp
    assert found.landlock or version < (5, 13) or not _has_landlock()
    assert found.remains() == [] or not (found.landlock and found.namespaces)


def _has_landlock() -> bool:
    listed = Path("/sys/kernel/security/lsm")
    return not listed.exists() or "landlock" in listed.read_text()


#: Where seccomp is missing, and where Landlock is as well.
WITHOUT_SECCOMP = {"look at a file", "fork", "start a thread", "become a program", "change a limit"}
BARE = WITHOUT_SECCOMP | {"start a program", "delete a file", "signal another process"} | MAY_BE_REFUSED


@pytest.mark.parametrize(
    ("missing", "lacking", "still_reached"),
    [
        (LANDLOCK, {"landlock"}, set()),
        (UNSHARE, {"namespaces"}, set()),
        (SECCOMP, {"seccomp"}, WITHOUT_SECCOMP),
        ([*LANDLOCK, *SECCOMP, *UNSHARE], {"landlock", "seccomp", "namespaces"}, BARE),
    ],
    ids=["no Landlock", "no namespaces", "no seccomp", "none of them"],
)
def test_what_a_kernel_lacks_is_said_and_the_rest_stands(
    given: dict[str, Any], missing: list[int], lacking: set[str], still_reached: set[str]
) -> None:
    how = f"without:{json.dumps(missing)}"
    with closing(_sandbox(how)) as sandbox:
        found = sandbox.confinement()
    assert {layer for layer in ("landlock", "seccomp", "namespaces") if not getattr(found, layer)} >= lacking
    said = " ".join(found.remains())
    words = {"landlock": "no Landlock", "seccomp": "no seccomp", "namespaces": "no namespaces"}
    assert all(words[layer] in said for layer in lacking)
    happened = _happened(how, given)
    assert {name for name, outcome in happened.items() if outcome == "done"} <= still_reached


def test_what_remains_is_said_for_every_combination() -> None:
    assert WHOLE.remains() == []
    assert str(WHOLE) == "seccomp, Landlock 1, network namespace"
    assert str(Confinement(False, 0, False)) == "resource limits only"
    assert "delete and rename files" in " ".join(Confinement(False, 0, False).remains())
    assert "signal and trace" not in " ".join(replace(WHOLE, seccomp=False).remains())
    assert "seccomp alone" in " ".join(replace(WHOLE, landlock=0).remains())


def test_the_calls_are_those_of_the_kernel() -> None:
    """The numbers against the machine's own: each call that is made by its number answers as the named one does."""
    column = {"x86_64": 0, "aarch64": 1}[platform.machine()]
    script = f"import ctypes, os; print(ctypes.CDLL(None).syscall({ALLOWED['getpid'][column]}) == os.getpid())"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "True\n"
    assert all(len({pair[column] for pair in ALLOWED.values()}) == len(ALLOWED) for column in (0, 1))


READ_ALL = """
import sys
from ingestion.readers import registry, zygote
from tests.documents import GOOD
documents = [(kind, make()) for kind, (_, make) in GOOD.items()]
documents += [
    (registry.PDF, open("examples/handbook/interlibrary.pdf", "rb").read()),
    *((registry.HTML, ("<meta charset=" + name + "><p>x").encode()) for name in ("koi8-r", "big5", "shift_jis", "utf-7")),
    (registry.HTML, "<p>Книги можно брать".encode("koi8-r")),
    (registry.TEXT, "Книги можно брать на четыре недели.".encode("cp1251")),
    (registry.MAIL, b"From: a@b\\nSubject: =?koi8-r?B?8sXL?=\\nContent-Type: text/plain; charset=iso-2022-jp\\n\\nx"),
]
"""
WATCHED = """
zygote.load_codecs()
[registry.load(kind) for kind, _ in documents]
seen = []
sys.addaudithook(lambda event, given: seen.append((event, given[0])) if event in ("open", "import") else None)
for kind, content in documents:
    registry.read(content, kind, max_chars=100_000)
print(seen)
"""


def test_reading_opens_no_file_and_imports_nothing(repository: Path) -> None:
    """In Python; that nothing native does either is what the readers' own tests see from inside the sandbox."""
    script = f"import sys; sys.path.insert(0, {str(repository)!r})\n{READ_ALL}{WATCHED}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=repository)
    assert done.stdout == "[]\n"


TRUTH = Parsed("x", True, "t", (0,), (("hidden_text", "y"),), "B")
#: Each of them true but for one field.
WRONG: list[dict[str, Any]] = [
    {"text": 5},
    {"text": "x\0"},
    {"text": "\ud800"},
    {"text": "x" * (MIB + 1)},
    {"title": 5},
    {"pages": [7]},
    {"pages": ["0"]},
    {"pages": [1, 0]},
    {"warnings": [[]]},
    {"outline": 5},
    {"outline": "BBB"},
    {"outline": "\ud800"},
]
LIES: list[Any] = [5, [], {"parsed": 5}, {"parsed": {}}, *({"parsed": asdict(TRUTH) | wrong} for wrong in WRONG)]


@pytest.mark.parametrize(
    "lie", [*(json.dumps(lie).encode() for lie in LIES), b"[" * 100_000, b"\xff"], ids=lambda lie: repr(lie[:80])
)
def test_what_a_child_answers_is_not_believed(lie: bytes) -> None:
    order = Order(TEXT, MIB, 5, MIB)
    with pytest.raises(ParserDied):
        _parsed(lie, order, late=False)
    truth = json.dumps({"parsed": asdict(TRUTH)}).encode()
    assert _parsed(truth, order, late=False) == TRUTH
