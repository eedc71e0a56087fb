"""Folders by the command line: what is taken, what is not read again, what is watched, and how it goes on when it was ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from api.cli.sources import Rules, find_files
from carrel_client import Carrel
from tests.support import Service, carrel, hold_still, wait_for


@pytest.fixture
def room(quick: Service) -> tuple[str, Carrel]:
    return quick.tenant()


def ingest(service: Service, name: str, *arguments: str | Path, status: int = 0) -> dict[str, Any]:
    done = carrel("ingest", *map(str, arguments), "-t", name, "--json", env=service.env)
    assert done.returncode == status, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary


def names(client: Carrel) -> set[str]:
    return {document.external_id for document in client.documents.list()}


@pytest.fixture
def pile(tmp_path: Path) -> Path:
    folder = tmp_path / "pile"
    for name in ("a.txt", "sub/b.md", "sub/deep/c.txt", ".hidden/d.txt", "sub/.e.txt", "old/f.txt", "g.bin"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"The file {name}.")
    (tmp_path / "outside.txt").write_text("Not of the pile.")
    (folder / "leads-out.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "leads-in.txt").symlink_to(folder / "a.txt")
    (folder / "loop").symlink_to(folder)
    return folder


def test_what_of_a_folder_is_taken(pile: Path) -> None:
    def taken(**rules: Any) -> set[str]:
        return {file.name for file in find_files([pile], Rules(**rules)).files}

    assert taken(exclude=("old/",)) == {"a.txt", "leads-in.txt", "sub/b.md", "sub/deep/c.txt"}
    assert taken(include=("*.bin", "sub/*.md")) == {"g.bin", "sub/b.md"}
    assert taken(hidden=True, exclude=("*.md", "leads-*", "deep")) == {".hidden/d.txt", "sub/.e.txt", "old/f.txt", "a.txt"}
    assert [file.name for file in find_files([pile / "g.bin"], Rules()).files] == ["g.bin"]


def test_what_did_not_change_is_not_read_and_what_is_gone_is_deleted_if_asked(
    quick: Service, room: tuple[str, Carrel], pile: Path
) -> None:
    name, mine = room
    first = ingest(quick, name, pile)
    assert (first["documents"], first["unread"]) == (5, 0)
    again = ingest(quick, name, pile)
    assert (again["documents"], again["unchanged"], again["unread"], again["tokens_charged"]) == (5, 5, 5, 0)
    (pile / "a.txt").write_text("Other words.")
    (pile / "old" / "f.txt").unlink()
    mine.documents.delete(next(document.id for document in mine.documents.list() if document.external_id == "sub/b.md"))
    changed = ingest(quick, name, pile)
    assert (changed["documents"], changed["unread"], changed["deleted"]) == (4, 1, 0)  # a.txt, the link to it, and sub/b.md
    assert names(mine) == {"a.txt", "leads-in.txt", "sub/b.md", "sub/deep/c.txt", "old/f.txt"}
    assert ingest(quick, name, pile, "--delete")["deleted"] == 1
    assert names(mine) == {"a.txt", "leads-in.txt", "sub/b.md", "sub/deep/c.txt"}
    other, theirs = quick.tenant()
    assert ingest(quick, other, pile)["unread"] == 0  # what is known of one tenant says nothing of another
    assert len(names(theirs)) == 4


def test_a_stream_of_lines_is_brought(quick: Service, room: tuple[str, Carrel], tmp_path: Path) -> None:
    name, mine = room
    (tmp_path / "lines").write_text(
        "".join(json.dumps({"text": f"Board {n}.", "external_id": f"b{n}"}) + "\n" for n in range(5))
    )
    done = carrel("ingest", "--ndjson", str(tmp_path / "lines"), "-t", name, env=quick.env)
    assert done.returncode == 0
    assert "5 documents accepted" in done.stdout
    piped = carrel("ingest", "--ndjson", "-", "-t", name, "--json", env=quick.env, input='{"text": "Board."}\n\n{broken\n')
    assert piped.returncode == 1
    *lines, summary = map(json.loads, piped.stdout.splitlines())
    assert [line["line"] for line in lines] == [1, 3]
    assert summary == {"accepted": 1, "unchanged": 0, "refused": 1}
    assert len(names(mine)) == 6
    assert carrel("ingest", str(tmp_path), "--ndjson", "-", "-t", name, env=quick.env).returncode == 2


@contextmanager
def running(service: Service, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-P", "-m", "api.cli.main", "ingest", *map(str, arguments), "--json"]
    with subprocess.Popen(command, env=service.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_folder_is_watched(quick: Service, room: tuple[str, Carrel], pile: Path) -> None:
    name, mine = room
    with running(quick, pile, "-t", name, "--watch", "--delete") as process:
        wait_for(lambda: len(names(mine)) == 5, what="the first round")
        (pile / "new.txt").write_text("It came later.")
        wait_for(lambda: "new.txt" in names(mine), what="a new file")
        (pile / "new.txt").write_text("It came later, and changed.")
        wait_for(lambda: _text(mine, "new.txt").endswith("changed."), what="its change")
        (pile / "old" / "f.txt").unlink()
        wait_for(lambda: "old/f.txt" not in names(mine), what="its end")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert "Stopped" in process.stderr.read()


def _text(client: Carrel, external_id: str) -> str:
    found = next(document for document in client.documents.list() if document.external_id == external_id)
    return client.documents.text(found.id) if found.state == "live" else ""


def test_what_is_ended_goes_on_where_it_was(quick: Service, room: tuple[str, Carrel], tmp_path: Path) -> None:
    name, mine = room
    for number in range(30):
        (tmp_path / f"{number}.txt").write_text(f"Board {number}.")
    worker = quick.child("worker")
    assert worker is not None
    with running(quick, tmp_path, "-t", name, "--parallel", "2") as process:
        assert process.stdout is not None
        first = [json.loads(process.stdout.readline()) for _ in range(5)]
        hold_still(worker, quick.data_dir)  # what is under way now does not end
        try:
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
        finally:
            os.kill(worker, signal.SIGCONT)
        assert process.stderr is not None
        assert "goes on where this one was" in process.stderr.read()
    assert {one["state"] for one in first} == {"live"}
    again = ingest(quick, name, tmp_path)
    assert again["documents"] == 30
    assert again["unread"] >= 5
    assert len(names(mine)) == 30
