"""A document can harm nothing but the child that reads it: not the worker, not the next document, not a file."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from config.errors import UnreadableDocument
from ingestion.media import HTML, MARKDOWN, PDF, TEXT
from ingestion.sandbox import ParserDied, Sandbox
from tests.support import PATIENCE, children, wait_for

MIB = 1024 * 1024
SLOW = b"<p>x</p>" * 400_000  # many seconds of work


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox(seconds=20, memory_bytes=512 * MIB, max_chars=10 * MIB)
    sandbox.warm_up()
    yield sandbox
    sandbox.close()


@pytest.fixture(scope="module")
def tight() -> Iterator[Sandbox]:
    """One second, and less memory than some documents take."""
    sandbox = Sandbox(seconds=1, memory_bytes=256 * MIB, max_chars=10 * MIB)
    sandbox.warm_up()
    yield sandbox
    sandbox.close()


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "document"
    path.write_text("# Rules\n\ngrüße")
    return path


def _zygote(sandbox: Sandbox) -> int:
    assert sandbox._zygote is not None
    return sandbox._zygote.pid


def test_a_document_is_read_in_a_child(sandbox: Sandbox, document: Path, repository: Path) -> None:
    parsed = sandbox.read(document, MARKDOWN)
    assert (parsed.text, parsed.markdown) == ("# Rules\n\ngrüße", True)
    pdf = sandbox.read(repository / "examples" / "handbook" / "interlibrary.pdf", PDF)
    assert pdf.pages[0] == 0
    assert isinstance(pdf.pages, tuple)


def test_code_is_outlined_in_the_child_and_is_text_where_that_takes_more_than_there_is(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / "source"
    path.write_text("int first(int a) {\n  return a;\n}\n\nint second;\n")
    assert sandbox.read(path, "text/x-c").outline == "ADD.B."
    before = _resident()
    path.write_text("(a" * 500_000)  # a tree of 2.2 GB
    parsed = sandbox.read(path, "text/x-c")
    assert (len(parsed.text), parsed.outline) == (1_000_000, "")
    assert _resident() - before < 100 * MIB
    assert sandbox.read(path, TEXT).outline == ""


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_a_refusal_keeps_its_reason(sandbox: Sandbox, document: Path) -> None:
    document.write_bytes(b"a\0b")
    with pytest.raises(UnreadableDocument, match="NUL"):
        sandbox.read(document, TEXT)
    with pytest.raises(UnreadableDocument, match="damaged"):
        sandbox.read(document, PDF)


def test_many_documents_are_read_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(24)]
    for path in paths:
        path.write_text(f"text {path.name} " * 10_000)
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda path: sandbox.read(path, TEXT).text, paths))
    assert texts == [path.read_text() for path in paths]
    wait_for(lambda: not children(_zygote(sandbox)), what="every child to be gone")


def test_a_document_that_takes_too_long_is_ended(tight: Sandbox, document: Path) -> None:
    document.write_bytes(SLOW)
    began = time.monotonic()
    with pytest.raises(ParserDied, match="longer than 1 s"):
        tight.read(document, HTML)
    assert time.monotonic() - began < 5 * PATIENCE
    wait_for(lambda: not children(_zygote(tight)), what="the child to be gone")


def test_a_document_that_takes_too_much_memory_is_refused(tight: Sandbox, document: Path) -> None:
    with document.open("wb") as file:
        file.truncate(1024 * MIB)
    with pytest.raises((UnreadableDocument, ParserDied), match=r"memory|resources"):
        tight.read(document, TEXT)


def test_absurd_nesting_is_refused(sandbox: Sandbox, document: Path) -> None:
    document.write_bytes(b"<div>" * 200_000 + b"x")
    with pytest.raises((UnreadableDocument, ParserDied)):
        sandbox.read(document, HTML)


def test_the_next_document_is_read_after_a_death(tight: Sandbox, document: Path) -> None:
    before = _zygote(tight)
    document.write_bytes(SLOW)
    with pytest.raises(ParserDied):
        tight.read(document, HTML)
    document.write_text("next")
    assert tight.read(document, TEXT).text == "next"
    assert _zygote(tight) == before


def test_a_killed_child_is_a_death_and_not_a_delay(sandbox: Sandbox, document: Path) -> None:
    document.write_bytes(SLOW)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(sandbox.read, document, HTML)
        child = wait_for(lambda: next(iter(children(_zygote(sandbox))), None), what="a child")
        os.kill(child, signal.SIGKILL)
        assert isinstance(reading.exception(10), ParserDied)


def test_a_killed_zygote_is_replaced(document: Path) -> None:
    sandbox = Sandbox(seconds=20, memory_bytes=512 * MIB, max_chars=MIB)
    for _ in range(2):
        assert sandbox.read(document, MARKDOWN).text
        os.kill(_zygote(sandbox), signal.SIGKILL)
    assert sandbox.read(document, MARKDOWN).text
    sandbox.close()


def test_a_zygote_killed_while_reading_takes_its_child_and_not_the_document(document: Path) -> None:
    sandbox = Sandbox(seconds=20, memory_bytes=512 * MIB, max_chars=MIB)
    sandbox.warm_up()
    document.write_bytes(b"<p>x</p>" * 30_000)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(sandbox.read, document, HTML)
        child = wait_for(lambda: next(iter(children(_zygote(sandbox))), None), what="a child")
        os.kill(_zygote(sandbox), signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{child}").exists(), what="the end of the child")
        assert reading.result(30).text.count("x") == 30_000
    sandbox.close()


def test_closing_ends_the_zygote_and_reading_starts_another(document: Path) -> None:
    sandbox = Sandbox(seconds=20, memory_bytes=512 * MIB, max_chars=MIB)
    sandbox.warm_up()
    zygote = _zygote(sandbox)
    sandbox.close()
    assert not Path(f"/proc/{zygote}").exists()
    assert sandbox.read(document, MARKDOWN).text
    sandbox.close()


def test_the_zygote_has_no_environment_and_no_files_of_ours(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARREL_API_KEY", "secret")
    with (tmp_path / "ours").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        sandbox = Sandbox(seconds=20, memory_bytes=512 * MIB, max_chars=MIB)
        sandbox.read(document, MARKDOWN)
        folder = Path(f"/proc/{_zygote(sandbox)}")
        assert (folder / "environ").read_bytes() == b""
        assert (folder / "cwd").readlink() == Path("/")
        opened = [str(path.readlink()) for path in (folder / "fd").iterdir()]
        sandbox.close()
    assert not [name for name in opened if name.startswith(str(tmp_path))]


LIMITED = """
import os, sys
from ingestion.readers.zygote import Order, _limit
from ingestion.readers.confinement import confine
_limit(Order("text/plain", 1, 5, 256 * 1024 * 1024))
if {confined}:
    confine(namespaces=False)
print("limited", flush=True)
{attempt}
print("done", flush=True)
"""
ATTEMPTS = {
    "writing a file": "open(sys.argv[1], 'wb', buffering=0).write(b'x')",
    "taking memory": "bytearray(300 * 1024 * 1024)",
    "opening a file": "open(os.devnull)",
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_the_limits_of_a_child_hold(tmp_path: Path, attempt: str) -> None:
    # Without confinement, which no file would be left to be written under, the size of files is bounded as well.
    script = LIMITED.format(attempt=ATTEMPTS[attempt], confined=attempt == "opening a file")
    command = [sys.executable, "-c", script, str(tmp_path / "written")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert ended.stdout == "limited\n"
    written = tmp_path / "written"
    assert not written.exists() or written.stat().st_size == 0


def test_a_content_that_is_not_there_leaves_nothing_open(sandbox: Sandbox, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            sandbox.read(tmp_path / "missing", TEXT)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_process_with_very_many_open_files_reads_too(sandbox: Sandbox, document: Path) -> None:
    most, limits = 1100, resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], most + 200), max(limits[1], most + 200)))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(most)]
    try:
        assert max(held) > 1024
        assert sandbox.read(document, MARKDOWN).markdown
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
