"""Memories: what is known of a subject."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from fastapi import Depends, Query, Request

from api.cursors import Cursor, Limit
from api.idempotency import ChargeId, Once
from api.routing import Services, Tenant, in_thread, meter_of, router, scope
from api.schemas.documents import Page, Text
from api.schemas.memories import (
    AGENT,
    AS_OF,
    EVERYTHING,
    VALID_AT,
    AddedOut,
    DeletedMemoryOut,
    Id,
    Key,
    MemoriesIn,
    MemoryOut,
    MemoryPatch,
    MemorySearchIn,
    MemorySearchOut,
    MemoryVersionOut,
    Name,
    Reason,
    Tag,
    wanted_of,
)
from api.schemas.times import Moment, unix_ms
from rag.memories.extraction import Extracted
from rag.memories.memories import TenantMemories
from rag.memories.values import Added
from tenants.context import Scope

routes = router("Memories")


async def _handle(services: Services, tenant: Tenant) -> TenantMemories:
    return services.conversations.memories.for_tenant(tenant, meter_of(services, tenant, ()), by=tenant.principal.id)


Handle = Annotated[TenantMemories, Depends(_handle)]
AsOf = Annotated[Moment | None, Query(description=AS_OF)]


@routes.post(
    "/v1/memories",
    operation_id="add_memories",
    summary="Keep facts of a subject, or find and keep those in messages",
    status_code=201,
    **scope(Scope.CONVERSE),
)
async def add_memories(body: MemoriesIn, handle: Handle, request: Request, once: Once, charge_id: ChargeId) -> AddedOut:
    facts, record = body.facts(), once.records(AddedOut.of, status=201)
    messages = [each.message() for each in body.messages]
    subject, session_id = body.subject, body.session_id or ""

    def add() -> Added:
        found = Extracted(tuple(facts))
        if messages:
            by_model = body.extract == "llm"
            found = handle.extracted(messages, by_model=by_model, charge_id=charge_id, subject=subject, session_id=session_id)
        return handle.add(
            found.facts,
            charge_id=charge_id,
            subject=subject,
            agent=body.agent or "",
            session_id=session_id,
            record=record,
            llm_tokens=found.charged,
        )

    added = await in_thread(add)
    request.state.audit = {"memories": [each.memory.version.memory_id for each in added.placed]}
    request.state.tokens = added.charged + added.llm_tokens
    return AddedOut.of(added)


@routes.get("/v1/memories", operation_id="list_memories", summary="List memories, oldest first", **scope(Scope.QUERY))
async def list_memories(
    handle: Handle,
    cursor: Cursor,
    subject: Annotated[Name | None, Query(description="Only this one's; callers with a subject see their own.")] = None,
    agent: Annotated[Name | None, Query(description=AGENT)] = None,
    session_id: Id | None = None,
    key: Key | None = None,
    tag: Tag | None = None,
    as_of: AsOf = None,
    valid_at: Annotated[Moment | None, Query(description=VALID_AT)] = None,
    everything: Annotated[bool, Query(description=EVERYTHING)] = False,
    limit: Limit = 20,
) -> Page[MemoryOut]:
    named = {"subject": subject, "agent": agent, "session_id": session_id, "key": key, "tag": tag, "everything": everything}
    wanted = wanted_of(as_of, valid_at, **named)
    found, following = await in_thread(lambda: handle.page(wanted, after=cursor.position, limit=limit))
    return Page(data=[*map(MemoryOut.of, found)], next=cursor.next(following))


@routes.post(
    "/v1/memories/search",
    operation_id="search_memories",
    summary="Find the memories of a subject that fit a question",
    **scope(Scope.QUERY, retrieval=True),
)
async def search_memories(body: MemorySearchIn, handle: Handle, request: Request, charge_id: ChargeId) -> MemorySearchOut:
    found = await in_thread(lambda: handle.search(body.query, wanted=body.wanted(), limit=body.limit, charge_id=charge_id))
    request.state.audit = {"memories": [hit.memory.version.memory_id for hit in found.hits]}
    request.state.tokens = found.charged
    return MemorySearchOut.of(found)


@routes.get("/v1/memories/{memory_id}", operation_id="get_memory", summary="Show a memory", **scope(Scope.QUERY))
async def get_memory(memory_id: Text, handle: Handle, as_of: AsOf = None) -> MemoryOut:
    moment: dt.datetime | None = as_of
    return MemoryOut.of(await in_thread(lambda: handle.get(memory_id, as_of=unix_ms(moment))))


@routes.get(
    "/v1/memories/{memory_id}/history",
    operation_id="list_memory_versions",
    summary="List a memory's versions, oldest first: who changed it, when and why",
    **scope(Scope.QUERY),
)
async def list_memory_versions(memory_id: Text, handle: Handle, cursor: Cursor, limit: Limit = 20) -> Page[MemoryVersionOut]:
    after = None if cursor.position is None else int(cursor.position)
    found = await in_thread(lambda: handle.history(memory_id, after=after, limit=limit))
    following = str(found[-1].version.number) if len(found) == limit else None
    return Page(data=[*map(MemoryVersionOut.of, found)], next=cursor.next(following))


@routes.patch("/v1/memories/{memory_id}", operation_id="update_memory", summary="Change a memory", **scope(Scope.CONVERSE))
async def update_memory(memory_id: Text, body: MemoryPatch, handle: Handle, request: Request, charge_id: ChargeId) -> MemoryOut:
    change = body.change()
    memory = await in_thread(lambda: handle.update(memory_id, change, charge_id=charge_id))
    request.state.audit = {"memory": memory_id, "version": memory.version.number}
    return MemoryOut.of(memory)


@routes.delete(
    "/v1/memories/{memory_id}",
    operation_id="delete_memory",
    summary="Delete a memory, with all that its history says",
    **scope(Scope.CONVERSE),
)
async def delete_memory(
    memory_id: Text, handle: Handle, request: Request, reason: Annotated[Reason | None, Query()] = None
) -> DeletedMemoryOut:
    row = await in_thread(lambda: handle.delete(memory_id, reason=reason))
    request.state.audit = {"memory": row.memory_id}
    return DeletedMemoryOut.of(row)
