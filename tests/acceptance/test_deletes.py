"""After a delete is acknowledged a document is in no answer, and five seconds later in no part of the service."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from sqlmodel import col, select

from carrel_client import Carrel, NotFoundError
from config.database import Database
from config.settings import Settings
from rag.embedding.cache import DiskVectorCache
from rag.embedding.hashing import HashRuntime
from rag.store.base import Space
from rag.store.remote import EngineClient
from tenants.tables import Tenant
from tests.support import PATIENCE, FakeScope, Service, wait_for

WITHIN_S = 5.0 * PATIENCE
TEXTS = {"ash": ("canaryashone sings", "canaryashtwo sings"), "elm": ("canaryelmone sings", "canaryelmtwo sings")}


def bring(carrel: Carrel, who: str) -> str:
    """Two versions of a document with everything that a document can have; its id."""
    for text in TEXTS[who]:
        described: dict[str, Any] = {
            "title": f"canary{who}title",
            "source": f"canary{who}source",
            "labels": [f"canary{who}label"],
            "attributes": {f"canary{who}key": f"canary{who}value"},
        }
        submitted = carrel.documents.create(text=text, external_id=f"canary{who}name", **described)
        submitted.wait()
    return submitted.document.id


class Inside:
    """What the service holds of a tenant, looked at from beneath."""

    def __init__(self, service: Service, name: str) -> None:
        self.folder = service.data_dir
        database = Database(f"sqlite:///{self.folder / 'carrel.db'}")
        try:
            with database.system_read() as session:
                tenant = session.scalars(select(Tenant).where(col(Tenant.name) == name)).one()
        finally:
            database.close()
        self.scope = FakeScope(tenant.id, tenant.cache_salt)
        with closing(sqlite3.connect(self.folder / "carrel.db")) as connection:
            [(space_id, dimensions)] = connection.execute("SELECT id, dimensions FROM spaces").fetchall()
        self.space = Space(space_id, dimensions)

    def rows(self) -> str:
        """Every row of every table, the job queue's too."""
        with closing(sqlite3.connect(self.folder / "carrel.db")) as connection:
            names = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
            return "".join(str(connection.execute(f'SELECT * FROM "{name}"').fetchall()) for name in names)

    def points(self) -> list[str]:
        client = EngineClient(Settings(data_dir=self.folder).engine_socket, patience_s=10, timeout_s=10)
        try:
            return client.for_tenant(self.scope, self.space).ids()
        finally:
            client.close()

    def cached(self, texts: tuple[str, ...], title: str) -> list[bool]:
        cache = DiskVectorCache(self.folder / "cache", max_bytes=1 << 30)
        try:
            found = cache.get(self.scope, self.space, [f"{title}\n\n{text}" for text in texts])
            return [vector is not None for vector in found]
        finally:
            cache.close()

    def files(self, *folders: str) -> bytes:
        return b"".join(
            path.read_bytes() for name in folders for path in sorted((self.folder / name).rglob("*")) if path.is_file()
        )


def test_a_deleted_document_is_nowhere(quick: Service) -> None:
    rooms = {who: quick.tenant() for who in TEXTS}
    documents = {who: bring(carrel, who) for who, (_, carrel) in rooms.items()}
    inside = {who: Inside(quick, name) for who, (name, _) in rooms.items()}
    name, carrel = rooms["ash"]
    held = quick.key(name, "query", labels=["canaryashlabel"])
    reader = quick.client(held)
    texts, title = TEXTS["ash"], "canaryashtitle"
    assert reader.query("who sings?").passages
    assert inside["ash"].cached(texts, title) == [True, True]
    assert len(inside["ash"].points()) == 1
    vectors = HashRuntime().embed([f"{title}\n\n{text}" for text in texts])
    stored = [np.asarray(vector, "<f2").tobytes() for vector in np.asarray(vectors)]
    assert all(raw in inside["ash"].files("cache") for raw in stored)
    assert b"canaryashtwo" in inside["ash"].files("blobs")
    assert "canaryashtwo" in inside["ash"].rows()

    job = carrel.documents.delete(documents["ash"])
    acknowledged = time.monotonic()
    _in_no_answer(reader, carrel, documents["ash"])
    wait_for(lambda: carrel.jobs.get(job.id).finished, what="the end of the delete", timeout_s=WITHIN_S)
    beneath = inside["ash"]
    assert beneath.points() == []
    assert beneath.cached(texts, title) == [False, False]
    assert "canaryash" not in _without_keys(beneath.rows())
    assert b"canaryash" not in beneath.files("blobs", "cache")
    remains = beneath.files("vectors")  # of a point that cannot be found any more: its vector and filter fields, no words of it
    assert not any(word.encode() in remains for word in ("canaryashone", "canaryashtwo", title, "canaryashsource"))
    assert not any(raw in beneath.files("cache") for raw in stored)
    assert time.monotonic() - acknowledged < WITHIN_S
    _in_no_answer(reader, carrel, documents["ash"])

    other = inside["elm"]
    assert rooms["elm"][1].query("who sings?").passages
    assert len(other.points()) == 1
    assert other.cached(TEXTS["elm"], "canaryelmtitle") == [True, True]
    assert b"canaryelmtwo" in other.files("blobs")


def _in_no_answer(reader: Carrel, carrel: Carrel, document: str) -> None:
    answers: list[Any] = [reader.query("who sings?"), *carrel.documents.list(), *carrel.jobs.list(), *carrel.events.list()]
    assert "canaryash" not in json.dumps([str(answer) for answer in answers])
    for call in (carrel.documents.get, carrel.documents.text):
        with pytest.raises(NotFoundError):
            call(document)


def _without_keys(rows: str) -> str:
    """What is no part of a document: a key's bounds name the label that it was to have, and a collection knows of what kind
    the attributes are that were seen in it."""
    return rows.replace('["canaryashlabel"]', "").replace('"canaryashkey": {"kind"', "").replace('"canaryashkey":{"kind"', "")


def test_a_text_that_another_document_has_is_found_there_still(quick: Service) -> None:
    """Its vector is gone from the cache with the first one; the point of the other stays, and so does what it answers."""
    (_, carrel), (_, other) = quick.tenant(), quick.tenant()
    for client in (carrel, other):
        for name in ("one", "two"):
            client.documents.create(text="Both boards are made of oak.", external_id=name).wait()
    one = next(document for document in carrel.documents.list() if document.external_id == "one")
    job = carrel.documents.delete(one.id)
    carrel.jobs.wait(job.id)
    assert [passage.external_id for passage in carrel.query("boards of oak").passages] == ["two"]
    again = carrel.documents.create(text="Both boards are made of oak.", external_id="one").wait()
    assert again is not None
    assert again.tokens_charged > 0
    kept = other.documents.create(text="Both boards are made of oak.", external_id="three").wait()
    assert kept is not None
    assert kept.tokens_charged == 0
