"""For agents on a desktop, which start a program and talk to it by standard input: what they ask goes to the service."""

from __future__ import annotations

from typing import Any

import httpx2
import mcp_types as types
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from api.version import VERSION

#: To connect and be sent things; for an answer a question may have to wait its turn.
PATIENCE = httpx2.Timeout(30, read=300)


async def bridge(url: str, api_key: str) -> None:
    """Serve standard input until it ends. `url`: of the service."""
    http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {api_key}"}, timeout=PATIENCE)
    async with http, Client(streamable_http_client(f"{url.rstrip('/')}/mcp/", http_client=http)) as service:
        server = _passing_on(service)
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())


def _passing_on(service: Client) -> Server[Any]:
    Context = ServerRequestContext[Any]

    async def list_tools(_: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return await service.list_tools()

    async def call_tool(_: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        return await service.call_tool(params.name, params.arguments)

    async def list_resources(_: Context, params: types.PaginatedRequestParams | None) -> types.ListResourcesResult:
        return await service.list_resources()

    async def templates(_: Context, params: types.PaginatedRequestParams | None) -> types.ListResourceTemplatesResult:
        return await service.list_resource_templates()

    async def read_resource(_: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        return await service.read_resource(params.uri)

    return Server(
        "carrel",
        version=VERSION,
        instructions=service.instructions,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=templates,
        on_read_resource=read_resource,
    )
