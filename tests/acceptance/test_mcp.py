"""Agents: the protocol's own client, of both generations, over HTTP and standard input, against a running service."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from carrel_client import Carrel
from tests.support import Service

READING = {"search", "fetch", "knowledge_search", "list_collections"}
MODES = ("auto", "legacy")
LONG = "Oak shelves stand in the north room. " * 1500


@asynccontextmanager
async def agent(service: Service, key: str, mode: str = "auto") -> AsyncIterator[Client]:
    http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=30)
    async with http:
        async with Client(streamable_http_client(f"{service.url}/mcp/", http_client=http), mode=mode) as client:  # type: ignore[arg-type]
            yield client


@asynccontextmanager
async def desktop_agent(service: Service, key: str, mode: str = "auto") -> AsyncIterator[Client]:
    env = {**os.environ, "CARREL_URL": service.url, "CARREL_API_KEY": key}
    parameters = StdioServerParameters(command=sys.executable, args=["-m", "api.cli.main", "mcp"], env=env)
    async with Client(parameters, mode=mode) as client:  # type: ignore[arg-type]
        yield client


class Room:
    """A tenant with documents of its own, and a key."""

    def __init__(self, service: Service) -> None:
        self.name, self.client = service.tenant()
        self.key = service.key(self.name)
        self.document = self._bring("shelves", f"The shelf of {self.name} is made of oak and has seven boards.").id
        self.long = self._bring("long", LONG + self.name).id

    def _bring(self, external_id: str, text: str) -> Any:
        brought = self.client.documents.create(text=text, external_id=external_id, title=external_id.title())
        brought.wait(timeout_s=60)
        return brought.document


@pytest.fixture(scope="module")
def rooms(shared_quick_service: Service) -> tuple[Room, Room]:
    return Room(shared_quick_service), Room(shared_quick_service)


@pytest.mark.parametrize("way", [agent, desktop_agent])
@pytest.mark.parametrize("mode", MODES)
def test_every_tool_and_resource(quick: Service, rooms: tuple[Room, Room], way: Any, mode: str) -> None:
    room, neighbour = rooms

    async def use() -> None:
        async with way(quick, room.key, mode) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert tools.keys() >= READING
            for name in READING:
                assert tools[name].annotations.read_only_hint
                assert tools[name].annotations.idempotent_hint
                assert tools[name].output_schema
            found = await client.call_tool("search", {"query": f"shelf of {room.name}"})
            results = found.structured_content["results"]
            assert results[0].keys() == {"id", "title", "url"}
            assert room.document in [each["id"] for each in results]
            assert json.loads(found.content[0].text) == found.structured_content
            read = (await client.call_tool("fetch", {"id": room.document})).structured_content
            assert room.name in read["text"]
            assert read.keys() == {"id", "title", "text", "url", "metadata"}
            known = await client.call_tool(
                "knowledge_search", {"query": "oak boards", "collection": "default", "max_tokens": 500}
            )
            assert known.structured_content["tokens"] <= 500
            assert room.document in [cited["document_id"] for cited in known.structured_content["citations"]]
            passage = known.structured_content["citations"][0]["id"]
            assert (await client.call_tool("fetch", {"id": passage})).structured_content["id"] == passage
            shown = (await client.call_tool("list_collections", {})).structured_content
            assert shown == {"collections": [{"name": "default", "documents": 2}], "more": False}
            assert (await client.list_resource_templates()).resource_templates
            text = (await client.read_resource(f"carrel://documents/{room.document}")).contents[0].text
            assert room.name in text
            assert neighbour.name not in str((found, read, known, shown, text))

    anyio.run(use)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_remembered_is_found_by_its_subject_alone(quick: Service, rooms: tuple[Room, Room], mode: str) -> None:
    room, neighbour = rooms
    ann, bob = f"ann-{mode}", f"bob-{mode}"

    async def use() -> None:
        async with agent(quick, room.key, mode) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert not tools["memory_add"].annotations.read_only_hint
            assert tools["memory_add"].annotations.idempotent_hint
            fact = {"text": "Ann lives in Berlin.", "subject": ann, "key": "home_city"}
            added = (await client.call_tool("memory_add", fact)).structured_content
            again = (await client.call_tool("memory_add", fact)).structured_content
            assert (added["outcome"], again["outcome"]) == ("added", "confirmed")
            assert again["memory"]["id"] == added["memory"]["id"]
            moved = (await client.call_tool("memory_add", {**fact, "text": "Ann lives in Paris."})).structured_content
            assert moved["superseded"] == [added["memory"]["id"]]
            asked = {"query": "Where does Ann live?", "subject": ann}
            found = (await client.call_tool("memory_search", asked)).structured_content["memories"]
            assert [each["text"] for each in found] == ["Ann lives in Paris."]
            other = await client.call_tool("memory_search", {**asked, "subject": bob})
            assert other.structured_content == {"memories": []}
            nameless = await client.call_tool("memory_search", {"query": "Ann"})
            assert nameless.is_error
            assert "subject" in nameless.content[0].text
        async with agent(quick, neighbour.key, mode) as client:
            assert (await client.call_tool("memory_search", asked)).structured_content == {"memories": []}
        async with agent(quick, quick.key(room.name, "query"), mode) as client:
            refused = await client.call_tool("memory_add", fact)
            assert refused.is_error
            assert "[forbidden]" in refused.content[0].text

    anyio.run(use)


def test_long_answers_come_in_pieces_and_join_without_a_gap(quick: Service, rooms: tuple[Room, Room]) -> None:
    async def use() -> None:
        async with agent(quick, rooms[0].key) as client:
            pieces, start = [], 0
            while True:
                read = (await client.call_tool("fetch", {"id": rooms[0].long, "start": start})).structured_content
                assert len(read["text"]) <= 20_000
                pieces.append(read["text"])
                if "next_start" not in read["metadata"]:
                    break
                start = read["metadata"]["next_start"]
            assert "".join(pieces) == LONG + rooms[0].name
            known = await client.call_tool("knowledge_search", {"query": "oak shelves north room", "max_tokens": 100})
            assert known.structured_content["tokens"] <= 100

    anyio.run(use)


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        ("fetch", {"id": "doc_" + "0" * 26}, "not_found"),
        ("fetch", {"id": "FOREIGN"}, "not_found"),
        ("fetch", {"id": "nonsense \0"}, "NUL"),
        ("knowledge_search", {"query": "oak", "collection": "no-such"}, "not_found"),
        ("knowledge_search", {"query": "oak", "filters": {"op": "near"}}, "invalid_input"),
        ("knowledge_search", {"query": "oak", "max_tokens": 10**9}, "20000"),
        ("knowledge_search", {"query": "oak" * 5000}, "8000"),
        ("search", {"query": " "}, "invalid_input"),
        ("search", {}, "query"),
    ],
)
def test_refusals_tell_the_model_what_is_wrong(
    quick: Service, rooms: tuple[Room, Room], tool: str, arguments: dict[str, Any], says: str
) -> None:
    given = {name: rooms[1].document if value == "FOREIGN" else value for name, value in arguments.items()}

    async def use() -> None:
        async with agent(quick, rooms[0].key) as client:
            refused = await client.call_tool(tool, given)
            assert refused.is_error
            assert says in refused.content[0].text

    anyio.run(use)


def test_without_a_good_key_nothing_is_reached(quick: Service, rooms: tuple[Room, Room]) -> None:
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    accepts = {"accept": "application/json, text/event-stream"}
    with httpx2.Client(base_url=quick.url) as http:
        for headers in ({}, {"authorization": "Bearer wrong"}):
            assert http.post("/mcp/", json=call, headers=headers).status_code == 401
        ingest_only = quick.key(rooms[0].name, "ingest")
        good = {"authorization": f"Bearer {rooms[0].key}", **accepts}
        assert http.post("/mcp/", json=call, headers={"authorization": f"Bearer {ingest_only}"}).status_code == 403
        for origin in ("https://evil.example", "null", "http://[::1"):
            assert http.post("/mcp/", json=call, headers={**good, "origin": origin}).status_code == 403
        assert http.post("/mcp/", json=call, headers={**good, "origin": "http://localhost:3000"}).status_code == 200
        assert http.get("/mcp/", headers=good).status_code == 405

    async def use() -> None:
        with pytest.raises((MCPError, ExceptionGroup)):
            async with desktop_agent(quick, "carrel_wrong") as client:
                await client.list_tools()

    anyio.run(use)


def test_what_agents_read_is_on_record(quick: Service, rooms: tuple[Room, Room]) -> None:
    name, client = quick.tenant()
    brought = client.documents.create(text="The cellar is dry.", external_id="cellar")
    brought.wait(timeout_s=60)

    async def use() -> None:
        async with agent(quick, quick.key(name)) as reader:
            await reader.call_tool("fetch", {"id": brought.document.id})

    anyio.run(use)
    manager: Carrel = quick.client(quick.key(name, "manage"))
    entries = [entry for entry in manager.audit.list() if entry.action.startswith("POST /mcp")]
    assert {"tool": "fetch", "documents": [brought.document.id]} in [entry.detail for entry in entries]


@pytest.mark.parametrize("clients", [16, pytest.param(64, marks=pytest.mark.full)])
def test_agents_of_two_tenants_at_once_are_never_mixed_up(quick: Service, rooms: tuple[Room, Room], clients: int) -> None:
    async def use(number: int) -> None:
        room, other = rooms[number % 2], rooms[1 - number % 2]
        async with agent(quick, room.key, MODES[number // 2 % 2]) as client:
            for _ in range(3):
                known = await client.call_tool("knowledge_search", {"query": "shelf of oak"})
                read = await client.call_tool("fetch", {"id": room.document})
                assert not known.is_error
                assert other.name not in str((known, read))
                assert room.name in str(read)

    async def all_of_them() -> None:
        async with anyio.create_task_group() as group:
            for number in range(clients):
                group.start_soon(use, number)

    anyio.run(all_of_them)
