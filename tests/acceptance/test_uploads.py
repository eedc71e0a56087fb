"""Files and folders that the client brings together, in both worlds, with progress."""

from __future__ import annotations

from pathlib import Path

import pytest

from carrel_client import InvalidRequestError, JobFailedError, PermissionDeniedError, UploadProgress
from tests.looped import WORLDS, client_of
from tests.support import Service


@pytest.mark.parametrize("world", WORLDS)
def test_a_folder_is_brought_with_progress(quick: Service, tmp_path: Path, world: str) -> None:
    (tmp_path / "sub").mkdir()
    files = {"a.md": "# A\n\nLamps.", "sub/b.txt": "Doors.", "sub/c.txt": "Keys.", ".hidden.txt": "No.", "d.log": "No."}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 broken")
    name, _ = quick.tenant()
    told: list[UploadProgress] = []
    with client_of(world, quick.url, key=quick.key(name)) as carrel:
        ended = list(carrel.documents.upload_folder(tmp_path, exclude=["*.log"], parallel=2, on_progress=told.append))
        assert {one.external_id for one in ended if one.error is None} == {"a.md", "sub/b.txt", "sub/c.txt"}
        [broken] = [one for one in ended if one.error is not None]
        assert (broken.path.name, type(broken.error)) == ("broken.pdf", JobFailedError)
        assert (told[-1].files, told[-1].files_done, told[-1].failed) == (4, 4, 1)
        assert told[-1].bytes_done == told[-1].bytes == sum(one.path.stat().st_size for one in ended)
        assert max(len(one.jobs) for one in told) <= 2
        assert any(job.state == "succeeded" for one in told for job in one.jobs.values())
        [again] = carrel.documents.upload([tmp_path / "a.md"])
        assert (again.external_id, again.error) == ("a.md", None)
        assert {one.external_id for one in carrel.documents.list(collection="default", external_ids=["a.md", "x"])} == {"a.md"}
        with pytest.raises(InvalidRequestError, match="collection"):
            next(carrel.documents.list(external_ids=["a.md"]))
    _, other = quick.tenant()
    other.documents.create(text="Elsewhere.")
    assert list(other.documents.list(collection="default", external_ids=["a.md"])) == []


@pytest.mark.parametrize("world", WORLDS)
def test_a_key_that_may_not_ends_an_upload(quick: Service, tmp_path: Path, world: str) -> None:
    for number in range(20):
        (tmp_path / f"{number}.txt").write_text(f"Lamp {number}.")
    name, _ = quick.tenant()
    told: list[UploadProgress] = []
    with client_of(world, quick.url, key=quick.key(name, "query")) as carrel, pytest.raises(PermissionDeniedError):
        list(carrel.documents.upload_folder(tmp_path, parallel=2, on_progress=told.append))
    assert told[-1].files_done < 20
