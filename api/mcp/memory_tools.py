"""The tools that remember: facts of the end user for whom the agent acts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ToolAnnotations
from pydantic import Field

from api.mcp.answers import Added, Remembered, RememberedAll
from api.mcp.calls import Call, refusals
from api.mcp.tools import READS, Asked
from api.schemas.memories import Key, Name, Said
from rag.memories.memories import TenantMemories
from rag.memories.values import Fact, Wanted
from tenants.context import Scope

#: A fact that is added again confirms the one that is there.
ADDS = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
MAX_FOUND = 50

Subject = Annotated[
    Name | None,
    Field(description="The end user; needed where the key speaks for nobody in particular, and else its own."),
]


def memory_add(
    text: Annotated[Said, Field(description="One fact in a sentence of its own, such as: Ann prefers tea.")],
    ctx: Context[Any, Any],
    subject: Subject = None,
    key: Annotated[Key | None, Field(description="What it is about, such as home_city: a newer fact takes its place.")] = None,
) -> Added:
    """Remember a fact about the user. What contradicts it is not true any more from then on, but stays in its history."""
    call = Call(ctx, Scope.CONVERSE, reads=False)
    with refusals():
        added = _memories(call).add([Fact(text, key)], charge_id=call.charge_id, subject=subject)
    call.spent(added.charged + added.llm_tokens)
    [placed] = added.placed
    call.record("memory_add", memories=[placed.memory.version.memory_id])
    return Added(memory=Remembered.of(placed.memory.version), outcome=placed.outcome, superseded=[*placed.superseded])


def memory_search(
    query: Asked,
    ctx: Context[Any, Any],
    subject: Subject = None,
    limit: Annotated[int, Field(ge=1, le=MAX_FOUND)] = 10,
) -> RememberedAll:
    """Find what is remembered of the user that fits a question, best first."""
    call = Call(ctx)
    with refusals():
        wanted = Wanted(subject=subject)
        found = _memories(call).search(query, wanted=wanted, limit=limit, charge_id=call.charge_id)
    call.spent(found.charged)
    call.record("memory_search", memories=[hit.memory.version.memory_id for hit in found.hits])
    return RememberedAll(memories=[Remembered.of(hit.memory.version) for hit in found.hits])


def _memories(call: Call) -> TenantMemories:
    by = call.tenant.principal.id
    return call.services.conversations.memories.for_tenant(call.tenant, call.meter(()), by=by)


TITLES: tuple[tuple[Callable[..., Any], str, ToolAnnotations], ...] = (
    (memory_add, "Remember", ADDS),
    (memory_search, "Search in memories", READS),
)


def add_memories(server: MCPServer) -> None:
    for tool, title, hints in TITLES:
        server.add_tool(tool, title=title, annotations=hints)
