"""`carrel mcp`: the service's tools for an agent that starts programs and talks to their standard input."""

from __future__ import annotations

import typer

from config.errors import SetupError
from config.settings import Settings


def register(app: typer.Typer) -> None:
    app.command()(mcp)


def mcp() -> None:
    """Serve the Model Context Protocol on standard input, for agents on a desktop.

    What they ask goes to the service at CARREL_URL (default: the one of this data directory) with the key in CARREL_API_KEY.
    In an agent's configuration: `{"command": "carrel", "args": ["mcp"], "env": {"CARREL_URL": …, "CARREL_API_KEY": …}}`.
    Agents that speak HTTP need no bridge: give them CARREL_URL/mcp/ and the key as a bearer token.
    """
    import anyio

    from api.cli.common import service_url
    from api.mcp.bridge import bridge
    from carrel_client import Carrel

    settings = Settings()
    if settings.api_key is None:
        raise SetupError("Set CARREL_API_KEY to a key of the tenant; `carrel key create` makes one.")
    url, key = service_url(settings), settings.api_key.get_secret_value().strip()
    with Carrel(api_key=key, base_url=url) as client:
        client.collections.profiles()  # a wrong key or address is told in one line: the protocol's client takes a hundred
    anyio.run(bridge, url, key)
