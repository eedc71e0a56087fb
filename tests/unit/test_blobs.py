"""Blobs: each of one owner, checked when read, and no name of theirs leads out of their folder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import Unavailable
from ingestion.blobs import BlobStore


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 1000])
def test_a_blob_comes_back_as_it_was(blobs: BlobStore, content: bytes) -> None:
    assert blobs.get(blobs.put("ver_a", content)) == content


def test_writing_the_same_again_changes_nothing(blobs: BlobStore) -> None:
    assert blobs.put("ver_a", b"same") == blobs.put("ver_a", b"same")
    assert blobs.count() == 1


def test_equal_contents_of_two_owners_live_and_die_apart(blobs: BlobStore) -> None:
    own, other = blobs.put("ver_a", b"same"), blobs.put("ver_b", b"same")
    assert own != other
    draft = blobs.put("ver_a", b"written by somebody who died before naming it")
    blobs.delete_owned("ver_a")
    blobs.delete_owned("ver_a")
    assert not blobs.path(own).exists()
    assert not blobs.path(draft).exists()
    assert blobs.get(other) == b"same"
    assert blobs.count() == 1


@given(owner=st.text(max_size=30).filter(lambda text: text.isprintable()), content=st.binary(max_size=50))
@settings(max_examples=50, deadline=None)
def test_no_owner_or_content_chooses_where_a_blob_lies(
    tmp_path_factory: pytest.TempPathFactory, owner: str, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("blobs")
    blobs = BlobStore(folder)
    path = blobs.path(blobs.put(owner, content))
    assert path.is_relative_to(folder)
    assert [found for found in folder.rglob("*") if found.is_file()] == [path]
    assert not set(path.name) - set("0123456789abcdef-")


@pytest.mark.parametrize("damage", [b"", b"tampered", b"content "])
def test_a_damaged_blob_is_never_handed_out(blobs: BlobStore, damage: bytes) -> None:
    name = blobs.put("ver_a", b"content")
    blobs.path(name).write_bytes(damage)
    with pytest.raises(Unavailable, match="damaged"):
        blobs.get(name)


def test_a_write_that_fails_leaves_nothing(blobs: BlobStore, tmp_path: Path) -> None:
    name = blobs.put("ver_a", b"content")
    blobs.delete_owned("ver_a")
    blobs.path(name).mkdir()  # replacing a folder by a file fails
    (blobs.path(name) / "inside").touch()
    blobs.path(name).rename(tmp_path / "aside")
    blobs.path(name).parent.rmdir()
    blobs.path(name).parent.write_text("a file in the folder's place")
    with pytest.raises(Unavailable):
        blobs.put("ver_a", b"content")
    assert blobs.count() == 0


def test_concurrent_writers_of_one_blob_agree(blobs: BlobStore) -> None:
    content = b"x" * 100_000
    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(lambda _: blobs.put("ver_a", content), range(40)))
    assert len(names) == blobs.count() == 1
    assert blobs.get(names.pop()) == content
