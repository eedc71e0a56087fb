"""The engine's folder is lost, points and contents are damaged: a real service and `carrel doctor --repair` mend it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from carrel_client import Carrel
from config.settings import Settings
from rag.embedding.hashing import HashRuntime
from rag.store.base import Point
from rag.store.remote import EngineClient
from tests.support import FakeScope, carrel, environment, start_service, wait_for

DOCUMENTS = 12
Answers = list[tuple[str, int, int, str, float]]


class Filled:
    """A service with two tenants who have documents of their own."""

    def __init__(self, data_dir: Path) -> None:
        self.env = environment(data_dir, embedding_runtime="hash")
        self.service = start_service(data_dir, self.env)
        try:
            self._fill()
        except BaseException:
            self.service.stop()
            raise

    def _fill(self) -> None:
        self.names = [self.service.tenant()[0] for _ in range(2)]
        self.keys = {name: self.service.key(name) for name in self.names}
        for name in self.names:
            client = self.client(name)
            brought = [
                client.documents.create(text=_text(name, number), external_id=f"doc-{number}", attributes={"shelf": number})
                for number in range(DOCUMENTS)
            ]
            for one in brought:
                one.wait(timeout_s=60)
        self.answers = {name: self.answer(name) for name in self.names}
        self.used = {name: self.client(name).usage().used for name in self.names}

    def client(self, name: str) -> Carrel:
        return self.service.client(self.keys[name])

    def answer(self, name: str) -> Answers:
        found = self.client(name).query("which shelf has oak?", top_k=50, filter={"key": "shelf", "op": "gte", "value": 3})
        return [(p.external_id, p.start, p.end, p.text, round(p.score, 5)) for p in found.passages]

    def restart(self) -> None:
        self.service = start_service(self.service.data_dir, self.env)

    def is_whole(self) -> bool:
        return {name: self.answer(name) for name in self.names} == self.answers

    def check(self) -> None:
        assert all(len(answers) >= DOCUMENTS - 3 for answers in self.answers.values())
        assert self.is_whole()
        assert {name: self.client(name).usage().used for name in self.names} == self.used


def _text(name: str, number: int) -> str:
    return "\n\n".join(f"Shelf {number} of {name}, board {board}: " + f"oak w{number} " * 30 for board in range(3))


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Filled]:
    filled = Filled(tmp_path)
    yield filled
    if filled.service.process.poll() is None:
        filled.service.stop()


def _repair(filled: Filled, status: int) -> dict[str, dict[str, object]]:
    done = carrel("doctor", "--repair", "--json", env=filled.env)
    assert done.returncode == status, done.stderr
    answer = json.loads(done.stdout)
    assert answer["ok"] == (status == 0)
    return {finding["kind"]: finding for finding in answer["findings"]}


def test_a_service_whose_vectors_were_lost_makes_them_again(filled: Filled) -> None:
    filled.service.stop()
    shutil.rmtree(filled.service.data_dir / "vectors")
    filled.restart()
    wait_for(filled.is_whole, what="every answer as before", timeout_s=60)
    filled.check()


@pytest.mark.full  # every day: tests/faults/test_engine_loss.py
def test_an_engine_that_comes_back_empty_is_filled_without_anybody_asking(filled: Filled) -> None:
    wait_for(lambda: carrel("doctor", env=filled.env).returncode == 0, what="a healthy service")
    shutil.rmtree(filled.service.data_dir / "vectors")
    filled.service.kill("engine")
    wait_for(filled.is_whole, what="every answer as before", timeout_s=60)
    filled.check()


@pytest.mark.full
def test_doctor_repairs_a_service_that_is_stopped(filled: Filled) -> None:
    filled.service.stop()
    data_dir = filled.service.data_dir
    shutil.rmtree(data_dir / "vectors")
    stray = data_dir / "blobs" / "ab" / ("ab" * 16 + "-" + "cd" * 32)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"of nobody")
    os.utime(stray, (1, 1))
    found = _repair(filled, 0)
    assert found.keys() == {"chunk_without_point", "blob_without_version"}
    assert not stray.exists()
    assert _repair(filled, 0) == {}
    filled.restart()
    filled.check()


def test_doctor_finds_and_repairs_damage_while_the_service_runs(filled: Filled) -> None:
    victim = filled.names[0]
    with filled.service.admin as admin:
        tenant_id = admin.admin.tenants.get(victim).id
    engine = EngineClient(Settings(data_dir=filled.service.data_dir).engine_socket, patience_s=10, timeout_s=10)
    space = HashRuntime.fingerprint.space
    vectors, strays = (engine.for_tenant(FakeScope(tenant), space) for tenant in (tenant_id, "ten_nobody"))
    # As many as will be lost: an engine with fewer points than SQL counts is filled by the service itself within 5 s.
    strays.upsert(
        [Point(str(UUID(int=n)), "doc_nobody", "col_nobody", np.ones(space.dimensions, np.float32)) for n in range(7)]
    )
    lost = vectors.ids()[:7]
    vectors.delete_points(lost)
    looked = carrel("doctor", "--json", env=filled.env)
    [data] = [finding for finding in json.loads(looked.stdout)["findings"] if finding["part"] == "data"]
    assert looked.returncode == 1
    assert "7 of tenant" in data["detail"]
    assert data["advice"] == "Run `carrel doctor --repair`."
    assert vectors.existing(lost) == set()
    found = _repair(filled, 0)
    assert {kind: (finding["tenant_id"], finding["count"]) for kind, finding in found.items()} == {
        "chunk_without_point": (tenant_id, 7),
        "points_of_unknown_tenant": ("ten_nobody", 7),
    }
    assert vectors.existing(lost) == {*lost}
    assert strays.count() == 0
    engine.close()
    assert carrel("doctor", env=filled.env).returncode == 0
    filled.check()


@pytest.mark.full
def test_what_cannot_be_repaired_is_told_and_fails(filled: Filled) -> None:
    texts = sorted((filled.service.data_dir / "blobs").glob("??/*"))
    texts[0].unlink()
    found = _repair(filled, 1)
    assert "backup" in str(found["version_without_blob"]["advice"])
    shown = carrel("doctor", "--repair", env=filled.env)
    assert shown.returncode == 1
    assert "REMAINS" in shown.stdout
    filled.check()


def test_repairing_before_the_first_start_finds_nothing(tmp_path: Path) -> None:
    done = carrel("doctor", "--repair", env=environment(tmp_path, embedding_runtime="hash"))
    assert done.returncode == 0
    assert "nothing to repair" in done.stdout
    assert not (tmp_path / "carrel.db").exists()
