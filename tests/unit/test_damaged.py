"""Whatever is wrong with a file of any format, its owner is told what to do, in time, and no other error is seen."""

from __future__ import annotations

import io
import random
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config.errors import UnreadableDocument, UnsupportedMedia
from ingestion.media import sniff
from ingestion.readers.archives import MAX_MEMBERS, MAX_UNPACKED, MIB, open_archive
from ingestion.readers.base import CannotRead, Parsed
from ingestion.sandbox import Sandbox
from tests.documents import GOOD, MAIN_PART, encrypted, repacked
from tests.support import PATIENCE

SECONDS = int(15 * PATIENCE)
_ENTITIES = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;"><!ENTITY f SYSTEM "file:///etc/passwd">]>'


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox(seconds=SECONDS, memory_bytes=1024 * MIB, max_chars=10 * MIB)
    sandbox.warm_up()
    yield sandbox
    sandbox.close()


@pytest.fixture
def bring(sandbox: Sandbox, tmp_path: Path) -> Callable[[bytes, str], Parsed]:
    """As a document is brought: recognised, then read in a child."""

    def bring(content: bytes, suffix: str) -> Parsed:
        path = tmp_path / f"document{suffix}"
        path.write_bytes(content)
        began = time.monotonic()
        try:
            return sandbox.read(path, sniff(content, path.name))
        finally:
            assert time.monotonic() - began < SECONDS

    return bring


Bring = Callable[[bytes, str], Parsed]


@pytest.mark.parametrize("kind", GOOD)
def test_a_good_document_is_recognised_and_read_in_a_child(bring: Bring, kind: str) -> None:
    suffix, make = GOOD[kind]
    content = make()
    assert sniff(content, f"document{suffix}") == kind
    assert "four weeks" in bring(content, suffix).text


def _refusal(bring: Bring, content: bytes, suffix: str) -> str:
    with pytest.raises((UnreadableDocument, UnsupportedMedia)) as refused:
        bring(content, suffix)
    return refused.value.detail


@pytest.mark.parametrize("kind", GOOD)
def test_what_is_cut_or_scrambled_is_read_or_refused(bring: Bring, kind: str) -> None:
    suffix, make = GOOD[kind]
    content = make()
    randomly = random.Random(kind)
    scrambled = bytearray(content)
    for _ in range(20):
        scrambled[randomly.randrange(len(scrambled))] = randomly.randrange(256)
    for bad in (content[: len(content) // 2], content[:-30], bytes(scrambled), content[:60] + randomly.randbytes(2_000)):
        try:
            parsed = bring(bad, suffix)
        except (UnreadableDocument, UnsupportedMedia):
            continue
        _check(parsed)


def _check(parsed: Parsed) -> None:
    for text in (parsed.text, parsed.title or ""):
        assert "\0" not in text
        text.encode()
    assert list(parsed.pages) == sorted(parsed.pages)
    assert all(0 <= start <= len(parsed.text) for start in parsed.pages)


@pytest.mark.parametrize("kind", MAIN_PART)
@pytest.mark.parametrize("wrong", [b"", b"no XML", b"<x/>", b"\x89PNG\r\n\x1a\n\0", b"<a>" * 100_000])
def test_a_wrong_main_part_is_refused(bring: Bring, kind: str, wrong: bytes) -> None:
    suffix, make = GOOD[kind]
    reason = _refusal(bring, repacked(make(), {MAIN_PART[kind]: wrong}), suffix)
    assert any(word in reason for word in ("damaged", "no text", "no values"))


@pytest.mark.parametrize("kind", MAIN_PART)
def test_an_archive_with_a_password_is_refused(bring: Bring, kind: str) -> None:
    suffix, make = GOOD[kind]
    assert "password" in _refusal(bring, encrypted(make()), suffix)


@pytest.mark.parametrize("kind", MAIN_PART)
def test_entities_are_refused_and_never_expanded(bring: Bring, kind: str) -> None:
    suffix, make = GOOD[kind]
    with zipfile.ZipFile(io.BytesIO(make())) as archive:
        part = archive.read(MAIN_PART[kind])
    declared = part.replace(b"?>", b"?>" + _ENTITIES, 1) if b"?>" in part[:200] else _ENTITIES + part
    changed = declared.replace(b"four weeks", b"&b;&f;")
    assert "document type" in _refusal(bring, repacked(make(), {MAIN_PART[kind]: changed}), suffix)


@pytest.mark.parametrize("kind", MAIN_PART)
def test_a_bomb_is_refused_before_it_is_unpacked(bring: Bring, kind: str) -> None:
    suffix, make = GOOD[kind]
    bomb = repacked(make(), {"bomb.xml": b" " * (MAX_UNPACKED + 1)})
    assert len(bomb) < 2 * MIB
    began = time.monotonic()
    assert "unpack" in _refusal(bring, bomb, suffix)
    assert time.monotonic() - began < 2 * PATIENCE


def _archive(members: dict[str, int], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, size in members.items():
            archive.writestr(name, b"x" * size)
    return file.getvalue()


@pytest.mark.parametrize(
    ("members", "method", "reason"),
    [
        ({"a": 20 * MIB}, zipfile.ZIP_DEFLATED, "unpack"),
        ({str(number): 0 for number in range(MAX_MEMBERS + 1)}, zipfile.ZIP_STORED, "parts"),
        ({"a": 10}, zipfile.ZIP_LZMA, "unusual"),
        ({"a": 10}, zipfile.ZIP_BZIP2, "unusual"),
    ],
)
def test_bounds_of_archives(members: dict[str, int], method: int, reason: str) -> None:
    with pytest.raises(CannotRead, match=reason):
        open_archive(_archive(members, method))


def test_what_lies_about_its_size_is_not_unpacked_further() -> None:
    content = bytearray(_archive({"a": 5 * MIB}))
    at = content.find(b"PK\x01\x02") + 24
    content[at : at + 4] = (10).to_bytes(4, "little")
    with open_archive(bytes(content)) as archive, pytest.raises(zipfile.BadZipFile):
        archive.read("a")


@pytest.mark.parametrize("suffix", sorted({suffix for suffix, _ in GOOD.values()} | {".pdf", ".txt"}))
def test_an_office_file_with_a_password_says_so(bring: Bring, suffix: str) -> None:
    head = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504)
    assert "password" in _refusal(bring, head + "EncryptedPackage".encode("utf-16-le") + bytes(500), suffix)
    assert "old Office format" in _refusal(bring, head + "WordDocument".encode("utf-16-le") + bytes(500), suffix)


@pytest.mark.parametrize("kind", MAIN_PART)
def test_a_name_that_lies_loses_to_the_bytes(kind: str) -> None:
    content = GOOD[kind][1]()
    for name in ("notes.txt", "page.html", "scan.pdf", "", *(f"x{suffix}" for suffix, _ in GOOD.values())):
        assert sniff(content, name) == kind
    with pytest.raises(UnsupportedMedia, match="is no"):
        sniff(b"plain text", f"document{GOOD[kind][0]}")
