"""Sessions and their turns."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query, Request

from api.cursors import Cursor, Limit
from api.entries import Entry, leaves_entry
from api.idempotency import Once
from api.routing import Services, Tenant, in_thread, router, scope
from api.schemas.documents import Page, Text
from api.schemas.sessions import (
    AppendOut,
    ForkIn,
    Order,
    SessionIn,
    SessionOut,
    SessionPatch,
    State,
    TurnOut,
    TurnsIn,
)
from rag.sessions.sessions import TenantSessions
from rag.sessions.values import Appended
from tenants.context import Scope

routes = router("Sessions")


async def _handle(services: Services, tenant: Tenant) -> TenantSessions:
    return services.conversations.sessions.for_tenant(tenant)


Handle = Annotated[TenantSessions, Depends(_handle)]


@routes.post(
    "/v1/sessions",
    operation_id="create_session",
    summary="Begin a session of a subject",
    status_code=201,
    **scope(Scope.CONVERSE),
)
@leaves_entry
async def create_session(body: SessionIn, handle: Handle, once: Once, entry: Entry) -> SessionOut:
    record = entry.records(201, lambda row: {"session": row.id}, once.records(SessionOut.of, status=201))
    return SessionOut.of(await in_thread(lambda: handle.create(body.session(), record=record)))


@routes.get("/v1/sessions", operation_id="list_sessions", summary="List sessions, the newest first", **scope(Scope.QUERY))
async def list_sessions(
    handle: Handle,
    cursor: Cursor,
    subject: Annotated[Text | None, Query(description="Only this one's; callers with a subject see their own.")] = None,
    tag: Annotated[Text | None, Query(description="Only those with this tag.")] = None,
    state: State | None = None,
    limit: Limit = 20,
) -> Page[SessionOut]:
    rows = await in_thread(lambda: handle.list(subject=subject, tag=tag, state=state, after=cursor.position, limit=limit))
    return Page(data=[*map(SessionOut.of, rows)], next=cursor.next(rows[-1].id if len(rows) == limit else None))


@routes.get("/v1/sessions/{session_id}", operation_id="get_session", summary="Show a session", **scope(Scope.QUERY))
async def get_session(session_id: Text, handle: Handle) -> SessionOut:
    return SessionOut.of(await in_thread(handle.get, session_id))


@routes.patch(
    "/v1/sessions/{session_id}",
    operation_id="update_session",
    summary="Change a session's title, tags, metadata, times and bounds",
    **scope(Scope.CONVERSE),
)
async def update_session(session_id: Text, body: SessionPatch, handle: Handle) -> SessionOut:
    return SessionOut.of(await in_thread(handle.update, session_id, body.changes()))


@routes.post(
    "/v1/sessions/{session_id}/turns",
    operation_id="append_turns",
    summary="Append turns, all of them or none",
    status_code=201,
    **scope(Scope.CONVERSE),
)
@leaves_entry
async def append_turns(
    session_id: Text, body: TurnsIn, services: Services, tenant: Tenant, handle: Handle, once: Once, entry: Entry
) -> AppendOut:
    kept = once.records(AppendOut.of, status=201)
    record = entry.records(201, lambda done: {"session": session_id, "turns": done.new}, kept)
    turns, files = [turn.turn() for turn in body.turns], body.files()

    def append() -> Appended:
        services.conversations.belongings.attached.for_tenant(tenant).require(session_id, files)
        return handle.append(session_id, turns, record=record)

    return AppendOut.of(await in_thread(append))


@routes.get(
    "/v1/sessions/{session_id}/turns", operation_id="list_turns", summary="List a session's turns", **scope(Scope.QUERY)
)
async def list_turns(
    session_id: Text, handle: Handle, cursor: Cursor, order: Order = "oldest", limit: Limit = 20
) -> Page[TurnOut]:
    after = None if cursor.position is None else int(cursor.position)
    rows = await in_thread(lambda: handle.turns(session_id, after=after, limit=limit, newest_first=order == "newest"))
    return Page(data=[*map(TurnOut.of, rows)], next=cursor.next(str(rows[-1].seq) if len(rows) == limit else None))


@routes.get("/v1/sessions/{session_id}/turns/{turn_id}", operation_id="get_turn", summary="Show a turn", **scope(Scope.QUERY))
async def get_turn(session_id: Text, turn_id: Text, handle: Handle) -> TurnOut:
    return TurnOut.of(await in_thread(handle.turn, session_id, turn_id))


@routes.post(
    "/v1/sessions/{session_id}/close",
    operation_id="close_session",
    summary="Take no more turns, until it is resumed",
    **scope(Scope.CONVERSE),
)
async def close_session(session_id: Text, handle: Handle) -> SessionOut:
    return SessionOut.of(await in_thread(handle.close, session_id))


@routes.post(
    "/v1/sessions/{session_id}/archive",
    operation_id="archive_session",
    summary="Put a session away: it takes no turns, and its idle time does not run",
    **scope(Scope.CONVERSE),
)
async def archive_session(session_id: Text, handle: Handle) -> SessionOut:
    return SessionOut.of(await in_thread(handle.archive, session_id))


@routes.post(
    "/v1/sessions/{session_id}/resume",
    operation_id="resume_session",
    summary="Open a session again",
    **scope(Scope.CONVERSE),
)
async def resume_session(session_id: Text, handle: Handle) -> SessionOut:
    return SessionOut.of(await in_thread(handle.resume, session_id))


@routes.post(
    "/v1/sessions/{session_id}/fork",
    operation_id="fork_session",
    summary="Begin another session with the turns of this one, up to one of them",
    status_code=201,
    **scope(Scope.CONVERSE),
)
async def fork_session(session_id: Text, body: ForkIn, handle: Handle, once: Once, request: Request) -> SessionOut:
    record = once.records(SessionOut.of, status=201)
    row = await in_thread(lambda: handle.fork(session_id, turn_id=body.turn_id, record=record))
    request.state.audit = {"session": session_id, "fork": row.id}
    return SessionOut.of(row)
