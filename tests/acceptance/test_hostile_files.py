"""Hostile files through a real service: it lives, each ends in time as the table declares, and nobody else notices."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from carrel_client import Carrel, CarrelClientError
from tests.hostile_files import TABLE, Hostile
from tests.support import Service

MAX_S, MAX_GROWTH = 15.0, 200 * 1024 * 1024
EVERY_DAY = {
    "entities.docx",
    "unpacks.docx",
    "page_tree.pdf",
    "attachments.eml",
    "wide.csv",
    "remote_picture.docx",
    "names.zip",
}


def _memory(service: Service) -> int:
    text = Path(f"/proc/{service.child('worker')}/statm").read_text()
    return int(text.split()[1]) * 4096


def _seconds(service: Service) -> float:
    """Processor time of its processes: others use the machine too. A child that reads has limits of its own."""
    ticks = 0
    for name in ("api", "worker", "engine"):
        fields = Path(f"/proc/{service.child(name)}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _end(client: Carrel, hostile: Hostile) -> tuple[str, str]:
    """What became of it, and its text or the reason."""
    try:
        brought = client.documents.create(content=hostile.make(), file_name=hostile.name, external_id=hostile.name)
    except CarrelClientError as error:
        return "refused", str(error)
    assert brought.job is not None
    try:
        brought.wait()
    except CarrelClientError as error:
        return client.documents.get(brought.document.id).state, str(error)
    text = client.documents.text(brought.document.id)
    assert "\0" not in text
    return client.documents.get(brought.document.id).state, text


def _check(service: Service, table: list[Hostile]) -> None:
    _, client = service.tenant()
    _, neighbour = service.tenant()
    neighbour.documents.create(text="Books may be kept for four weeks.", external_id="rules").wait()
    worker, before = service.child("worker"), _memory(service)
    for hostile in table:
        began = _seconds(service)
        end, said = _end(client, hostile)
        assert (hostile.name, end) == (hostile.name, hostile.end), said[:300]
        assert hostile.says in said, (hostile.name, said[:300])
        assert _seconds(service) - began < MAX_S, hostile.name
    assert service.child("worker") == worker
    assert _memory(service) - before < MAX_GROWTH
    assert [document.external_id for document in neighbour.documents.list()] == ["rules"]


def test_the_usual_attacks(service: Service) -> None:
    _check(service, [hostile for hostile in TABLE if hostile.name in EVERY_DAY])


@pytest.mark.full
@pytest.mark.timeout(900)
def test_every_hostile_file_ends_as_declared(quick: Service) -> None:
    _check(quick, TABLE)
