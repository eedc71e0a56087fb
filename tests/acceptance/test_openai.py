"""The real OpenAI SDK, unmodified, against a running service: every call of vector stores, files, embeddings and models."""

from __future__ import annotations

import asyncio
import base64
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types import FileObject, VectorStore
from openai.types.vector_stores import VectorStoreFile
from pydantic import BaseModel

from rag.tokens import encoding
from tests.support import Service, running_service, wait_for

TEXT = "Books may be kept for four weeks. A day late costs ten cents."
OTHER = "The reading room opens at nine and closes at six."


@pytest.fixture(scope="module")
def hashed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Without a model: of what is asked here, nothing depends on one."""
    with running_service(tmp_path_factory.mktemp("openai"), embedding_runtime="hash", embedding_dimensions=256) as running:
        yield running


def sdk(service: Service, key: str | None = None, **options: Any) -> OpenAI:
    key = key or service.key(service.tenant()[0])
    return OpenAI(api_key=key, base_url=f"{service.url}/v1", **options)


@pytest.fixture
def client(hashed: Service) -> Iterator[OpenAI]:
    with sdk(hashed) as client:
        yield client
    hashed.close_clients()


def whole(given: BaseModel) -> None:
    """Everything that the SDK's type names was answered, and nothing of another type."""
    answered = given.model_fields_set
    assert set(type(given).model_fields) <= answered, type(given)
    type(given).model_validate(given.model_dump())
    for name in answered:
        inner = getattr(given, name)
        for each in inner if isinstance(inner, list) else [inner]:
            if isinstance(each, BaseModel):
                whole(each)


def upload(client: OpenAI, text: str = TEXT, name: str = "rules.txt") -> FileObject:
    return client.files.create(file=(name, text.encode()), purpose="assistants")


def test_a_store_from_its_files_to_its_end(client: OpenAI) -> None:
    file = upload(client)
    store = client.vector_stores.create(
        name="Rules",
        description="of the house",
        file_ids=[file.id],
        metadata={"team": "desk"},
        expires_after={"anchor": "last_active_at", "days": 7},
        chunking_strategy={"type": "static", "static": {"max_chunk_size_tokens": 120, "chunk_overlap_tokens": 20}},
    )
    whole(store)
    assert (store.file_counts.total, store.name, store.metadata) == (1, "Rules", {"team": "desk"})
    assert store.expires_at == (store.last_active_at or 0) + 7 * 86_400
    member = client.vector_stores.files.poll(file.id, vector_store_id=store.id)
    whole(member)
    assert (member.status, member.last_error, member.id) == ("completed", None, file.id)
    assert member.chunking_strategy is not None
    assert member.chunking_strategy.model_dump()["static"] == {"max_chunk_size_tokens": 120, "chunk_overlap_tokens": 20}
    now = client.vector_stores.retrieve(store.id)
    assert (now.status, now.usage_bytes, now.file_counts.completed) == ("completed", len(TEXT), 1)
    found = client.vector_stores.search(store.id, query="how long may books be kept?", max_num_results=3)
    assert [result.file_id for result in found] == [file.id]
    whole(found.data[0])
    assert (found.data[0].filename, found.data[0].content[0].text) == ("rules.txt", TEXT)
    cited = found.data[0].model_extra or {}
    assert TEXT[cited["start"] : cited["end"]] == TEXT
    assert {"chunk_id", "document_id", "page"} <= cited.keys()
    [content] = client.vector_stores.files.content(file.id, vector_store_id=store.id)
    assert (content.type, content.text) == ("text", TEXT)
    renamed = client.vector_stores.update(store.id, name="House", metadata={}, expires_after=None)
    assert (renamed.name, renamed.metadata, renamed.expires_at) == ("House", {}, None)
    gone = client.vector_stores.files.delete(file.id, vector_store_id=store.id)
    assert (gone.id, gone.deleted) == (file.id, True)
    assert client.vector_stores.retrieve(store.id).file_counts.total == 0
    assert client.vector_stores.search(store.id, query="books").data == []
    assert client.files.retrieve(file.id).id == file.id
    assert client.vector_stores.delete(store.id).deleted
    with pytest.raises(openai.NotFoundError) as refused:
        client.vector_stores.retrieve(store.id)
    assert (refused.value.code, refused.value.param) == ("not_found", "vector_store_id")


def test_files_are_kept_as_they_came(client: OpenAI) -> None:
    file = client.files.create(
        file=("notes.bin", b"\0\1\2"), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert file.expires_at == file.created_at + 3600
    assert (file.bytes, file.filename, file.purpose, file.status) == (3, "notes.bin", "user_data", "processed")
    whole(client.files.retrieve(file.id))
    assert client.files.content(file.id).read() == b"\0\1\2"
    assert client.files.wait_for_processing(file.id).id == file.id
    other = upload(client)
    assert [one.id for one in client.files.list()] == [other.id, file.id]
    assert [one.id for one in client.files.list(limit=1, order="asc")] == [file.id, other.id]
    assert [one.id for one in client.files.list(purpose="assistants")] == [other.id]
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.content(file.id)
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=("a.txt", b"a"), purpose="nonsense")  # type: ignore[arg-type]
    assert refused.value.param == "purpose"


def test_batches_take_what_they_can(client: OpenAI) -> None:
    store = client.vector_stores.create()
    good = [upload(client, f"{OTHER} Number {number}.", f"{number}.txt") for number in range(3)]
    broken = upload(client, "\0\1\2" * 9, "broken.pdf")
    batch = client.vector_stores.file_batches.create_and_poll(
        store.id, file_ids=[*(file.id for file in good), broken.id], attributes={"floor": 2, "open": True, "wing": "north"}
    )
    whole(batch)
    assert (batch.status, batch.file_counts.completed, batch.file_counts.failed) == ("completed", 3, 1)
    assert client.vector_stores.file_batches.retrieve(batch.id, vector_store_id=store.id).file_counts.total == 4
    listed = client.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id, filter="failed")
    [failed] = [*listed]
    whole(failed)
    assert failed.last_error is not None
    assert (failed.id, failed.last_error.code) == (broken.id, "unsupported_file")
    assert failed.attributes == {"floor": 2.0, "open": True, "wing": "north"}
    assert client.vector_stores.file_batches.cancel(batch.id, vector_store_id=store.id).status == "completed"
    mixed = client.vector_stores.file_batches.create(
        store.id, files=[{"file_id": good[0].id, "attributes": {"floor": 3}}, {"file_id": good[1].id}]
    )
    done = client.vector_stores.file_batches.poll(mixed.id, vector_store_id=store.id)
    assert (done.status, done.file_counts.total) == ("completed", 2)
    more = client.vector_stores.file_batches.upload_and_poll(store.id, files=[("new.md", b"# New\n\nWords.")])
    assert more.file_counts.completed == 1
    ids = [file.id for file in client.vector_stores.files.list(store.id, limit=2, order="asc")]
    assert len(ids) == 5
    assert ids == sorted(ids)
    before = client.vector_stores.files.list(store.id, before=ids[3], limit=2, order="asc")
    assert [file.id for file in before.data] == ids[1:3]
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.file_batches.create(store.id, file_ids=[good[0].id, "file-missing"])


def test_files_of_a_store_are_filtered_by_their_attributes(client: OpenAI) -> None:
    store = client.vector_stores.create(name="floors")
    for floor in range(4):
        file = upload(client, f"{OTHER} This is floor {floor}.", f"{floor}.txt")
        member = client.vector_stores.files.create_and_poll(
            file.id, vector_store_id=store.id, attributes={"floor": floor, "even": floor % 2 == 0}
        )
        assert member.attributes == {"floor": float(floor), "even": floor % 2 == 0}

    def floors(filters: Any, **more: Any) -> list[Any]:
        found = client.vector_stores.search(store.id, query=["reading room", "floor"], filters=filters, **more)
        return sorted((result.attributes or {})["floor"] for result in found)

    assert floors({"type": "gte", "key": "floor", "value": 2}) == [2, 3]
    assert floors({"type": "nin", "key": "floor", "value": [0, 1, 2]}) == [3]
    both = [{"type": "eq", "key": "even", "value": True}, {"type": "lt", "key": "floor", "value": 2}]
    assert floors({"type": "and", "filters": both}) == [0]
    assert floors({"type": "or", "filters": both}) == [0, 1, 2]
    dense = {"carrel": {"mode": "dense"}}  # so that scores are cosines
    for least, expected in ((0.9, 0), (0.1, 4)):
        ranked: Any = {"ranker": "none", "score_threshold": least}
        found = client.vector_stores.search(store.id, query="reading bicycles", ranking_options=ranked, extra_body=dense)
        assert len(found.data) == expected
    assert len(floors(None, max_num_results=2, rewrite_query=True, ranking_options={"ranker": "auto"})) == 2
    assert len(floors(None, extra_body={"carrel": {"mode": "dense", "diversity": {"collapse": True}}})) >= 1
    with pytest.raises(openai.BadRequestError) as refused:
        floors({"type": "like", "key": "floor", "value": 1})
    assert refused.value.code == "invalid_input"
    changed = client.vector_stores.files.update(file.id, vector_store_id=store.id, attributes={"floor": 9})
    assert changed.attributes == {"floor": 9.0}
    client.vector_stores.files.poll(file.id, vector_store_id=store.id)
    assert floors({"type": "eq", "key": "floor", "value": 9}) == [9]


def test_stores_are_listed_page_by_page_for_one_tenant_only(hashed: Service) -> None:
    with sdk(hashed) as mine, sdk(hashed) as theirs:
        ids = [mine.vector_stores.create(name="same").id for _ in range(3)]
        foreign = theirs.vector_stores.create(name="same").id
        listed = [store.id for store in mine.vector_stores.list(limit=2)]
        assert listed == ids[::-1]
        assert [store.id for store in mine.vector_stores.list(after=ids[0], order="asc").data] == ids[1:]
        assert [store.id for store in mine.vector_stores.list(before=ids[2], limit=1, order="asc").data] == [ids[1]]
        file = upload(theirs)
        for refused in (
            lambda: mine.vector_stores.retrieve(foreign),
            lambda: mine.vector_stores.search(foreign, query="books"),
            lambda: mine.vector_stores.delete(foreign),
            lambda: mine.files.content(file.id),
            lambda: mine.vector_stores.files.create(ids[0], file_id=file.id),
        ):
            with pytest.raises(openai.NotFoundError):
                refused()


@pytest.mark.full
def test_a_deleted_file_leaves_every_store(client: OpenAI) -> None:
    file = upload(client)
    stores = [client.vector_stores.create(file_ids=[file.id]).id for _ in range(2)]
    for store in stores:
        client.vector_stores.files.poll(file.id, vector_store_id=store)
    client.files.delete(file.id)
    for store in stores:
        assert client.vector_stores.search(store, query="books").data == []
        assert [*client.vector_stores.files.list(store)] == []


def test_embeddings_in_every_form(client: OpenAI) -> None:
    [model] = client.models.list()
    whole(client.models.retrieve(model.id))
    assert model.id == "hash"
    plain = client.embeddings.create(model="hash", input=[TEXT, OTHER])
    whole(plain)
    floats = client.embeddings.create(model="hash", input=TEXT, encoding_format="float", user="somebody")
    assert np.allclose(plain.data[0].embedding, floats.data[0].embedding)
    raw = client.post("/embeddings", body={"model": "hash", "input": TEXT, "encoding_format": "base64"}, cast_to=object)
    packed = raw["data"][0]["embedding"]  # type: ignore[index]
    assert np.allclose(struct.unpack("<256f", base64.b64decode(packed)), floats.data[0].embedding)
    tokens = encoding("cl100k_base").encode_ordinary(TEXT)
    assert client.embeddings.create(model="hash", input=tokens).data[0].embedding == plain.data[0].embedding
    several = client.embeddings.create(model="hash", input=[tokens, tokens])
    assert [one.index for one in several.data] == [0, 1]
    cut = client.embeddings.create(model="hash", input=TEXT, dimensions=64).data[0].embedding
    assert len(cut) == 64
    assert np.linalg.norm(cut) == pytest.approx(1)
    assert plain.usage.prompt_tokens == plain.usage.total_tokens > 0
    for wrong in (
        {"input": ""},
        {"input": []},
        {"input": [[200_000]]},
        {"input": "x" * 2000},
        {"input": "a", "dimensions": 512},
    ):
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(model="hash", **wrong)  # type: ignore[arg-type]
    with pytest.raises(openai.NotFoundError) as refused:
        client.embeddings.create(model="text-embedding-3-small", input="a")
    assert refused.value.param == "model"
    assert client.embeddings.create(
        model="hash", input="x" * 2000, extra_body={"carrel": {"truncate": True, "input_type": "query"}}
    ).data


def test_refusals_are_what_the_sdk_knows(hashed: Service) -> None:
    with OpenAI(api_key="wrong", base_url=f"{hashed.url}/v1", max_retries=0) as nobody:
        with pytest.raises(openai.AuthenticationError) as refused:
            nobody.models.list()
        assert (refused.value.code, refused.value.type) == ("unauthenticated", "authentication_error")
    name, _ = hashed.tenant(monthly_tokens=20)
    with sdk(hashed, hashed.key(name), max_retries=0) as poor:
        with pytest.raises(openai.APIStatusError) as exhausted:
            poor.embeddings.create(model="hash", input=TEXT)
        assert (exhausted.value.status_code, exhausted.value.code) == (402, "budget_exhausted")
        assert (exhausted.value.body or {})["type"] == "insufficient_quota"  # type: ignore[index]
    with sdk(hashed, hashed.key(name, "query")) as reader:
        with pytest.raises(openai.PermissionDeniedError):
            reader.vector_stores.create()
        with pytest.raises(openai.BadRequestError) as unknown:
            reader.vector_stores.search("vs_x", query="a", extra_body={"nonsense": 1})
        assert unknown.value.param == "nonsense"
    parts = (b'name="purpose"\r\n\r\nuser_data', b'name="file"; filename="a\0b.txt"\r\n\r\nx')  # the SDK would quote the NUL
    body = b"".join(b"--x\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--x--\r\n"
    headers = {"Authorization": f"Bearer {hashed.key(name)}", "Content-Type": "multipart/form-data; boundary=x"}
    unnamed = httpx2.post(f"{hashed.url}/v1/files", content=body, headers=headers)
    assert (unnamed.status_code, unnamed.json()["error"]["param"]) == (400, "file")


@pytest.mark.full
def test_a_key_with_bounds_searches_in_them_and_writes_nothing(hashed: Service) -> None:
    name, _ = hashed.tenant()
    with sdk(hashed, hashed.key(name)) as owner:
        file = upload(owner)
        within, beyond = (owner.vector_stores.create(file_ids=[file.id]).id for _ in range(2))
        secret = owner.vector_stores.create().id
        owner.vector_stores.files.create_and_poll(file.id, vector_store_id=secret, extra_body={"carrel": {"labels": ["staff"]}})
        for store in (within, beyond):
            owner.vector_stores.files.poll(file.id, vector_store_id=store)
    with sdk(hashed, hashed.key(name, collections=[within])) as bound:
        assert len(bound.vector_stores.search(within, query="books").data) == 1
        assert [store.id for store in bound.vector_stores.list()] == [within]
        with pytest.raises(openai.NotFoundError):
            bound.vector_stores.search(beyond, query="books")
        with pytest.raises(openai.PermissionDeniedError):
            bound.files.retrieve(file.id)
    with sdk(hashed, hashed.key(name, labels=["guest"])) as guest:
        assert guest.vector_stores.search(secret, query="books").data == []
        assert [*guest.vector_stores.files.list(secret)] == []


@pytest.mark.full
def test_the_native_routes_know_a_store_by_its_id(hashed: Service) -> None:
    name, native = hashed.tenant()
    with sdk(hashed, hashed.key(name)) as client:
        store = client.vector_stores.create(name="A name with blanks").id
        client.vector_stores.files.create_and_poll(upload(client).id, vector_store_id=store)
        native.documents.create(text="Brought natively about bicycles.", collection=store, title="Bicycles").wait()
        assert native.query("books", collections=[store]).passages
        [found] = client.vector_stores.search(store, query="bicycles", max_num_results=1)
        assert found.file_id.startswith("doc_")
        assert client.vector_stores.retrieve(store).file_counts.total == 1
        client.vector_stores.delete(store)
        wait_for(lambda: store not in {row.name for row in native.collections.list()}, what="the collection to go")


@pytest.mark.full
def test_the_asynchronous_sdk(hashed: Service) -> None:
    key = hashed.key(hashed.tenant()[0])

    async def run() -> None:
        async with AsyncOpenAI(api_key=key, base_url=f"{hashed.url}/v1") as client:
            files = [await client.files.create(file=(f"{n}.txt", f"{TEXT} {n}".encode()), purpose="assistants") for n in (1, 2)]
            store: VectorStore = await client.vector_stores.create(name="a")
            first: VectorStoreFile = await client.vector_stores.files.create_and_poll(files[0].id, vector_store_id=store.id)
            whole(first)
            batch = await client.vector_stores.file_batches.create_and_poll(store.id, file_ids=[file.id for file in files])
            assert batch.file_counts.completed == 2
            third = await client.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=("c.txt", OTHER.encode()))
            assert third.status == "completed"
            results = [result async for result in client.vector_stores.search(store.id, query="books")]
            assert len(results) >= 2
            assert len([file async for file in client.vector_stores.files.list(store.id, limit=1)]) == 3
            listed = client.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id)
            assert len([file async for file in listed]) == 2
            assert [one.id async for one in client.models.list()] == ["hash"]
            vectors = await client.embeddings.create(model="hash", input=["a b", "c"])
            assert len(vectors.data) == 2
            assert (await client.files.content(files[0].id)).text == f"{TEXT} 1"
            await client.vector_stores.update(store.id, name="b")
            assert [one.name async for one in client.vector_stores.list()] == ["b"]
            await client.vector_stores.delete(store.id)
            assert len([file async for file in client.files.list()]) == 3

    asyncio.run(run())


def test_a_repeated_request_makes_one_store_and_one_file(client: OpenAI) -> None:
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    stores = [client.vector_stores.create(name="once", extra_headers=headers) for _ in range(2)]
    assert stores[0].id == stores[1].id
    files = [client.files.create(file=("a.txt", b"a"), purpose="assistants", extra_headers=headers) for _ in range(2)]
    assert files[0].id == files[1].id
    batches = [
        client.vector_stores.file_batches.create(stores[0].id, file_ids=[files[0].id], extra_headers=headers) for _ in range(2)
    ]
    assert batches[0] == batches[1]
    assert len([*client.vector_stores.list()]) == len([*client.files.list()]) == 1


def test_the_documented_snippet_runs(hashed: Service, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (repository / "docs" / "openai.md").read_text(encoding="utf-8")
    snippet = page.partition("```python\n")[2].partition("```")[0]
    snippet = snippet.replace("carrel_key_...", hashed.key(hashed.tenant()[0])).replace("http://127.0.0.1:8321", hashed.url)
    ran: dict[str, Any] = {}
    exec(compile(snippet, "docs/openai.md", "exec"), ran)
    ran["client"].close()
    hashed.close_clients()
    assert "rules.txt [0:33]  Books may be kept for four weeks." in capsys.readouterr().out
    assert len(ran["vectors"]) == 2


@pytest.mark.full
def test_the_real_model_finds_by_meaning(service: Service) -> None:
    with sdk(service) as client:
        store = client.vector_stores.create(name="Rules", file_ids=[upload(client).id, upload(client, OTHER, "room.txt").id])
        wait_for(lambda: client.vector_stores.retrieve(store.id).file_counts.completed == 2, what="two files")
        best = client.vector_stores.search(store.id, query="what is the fine for an overdue loan?").data[0]
        assert best.filename == "rules.txt"
        [model] = client.models.list()
        vectors = client.embeddings.create(model=model.id, input=[TEXT, "How long can I borrow books?", "fish"]).data
        near, far = (np.dot(vectors[0].embedding, vectors[i].embedding) for i in (1, 2))
        assert near > far
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(model=model.id, input="a", dimensions=64)
