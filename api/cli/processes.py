"""`carrel serve`, and the three processes alone."""

from __future__ import annotations

import json
import socket
import sys
from typing import Annotated

import typer

from api.cli.common import AsJson
from config.settings import Settings

Supervised = Annotated[bool, typer.Option("--supervised", hidden=True, help="End when standard input closes.")]


def register(app: typer.Typer) -> None:
    for command in (serve, api, worker, engine):
        app.command()(command)


def serve(
    demo: Annotated[bool, typer.Option(help="Also make a tenant `demo` with a key, and print curl lines to try.")] = False,
    as_json: AsJson = False,
    supervised: Supervised = False,
) -> None:
    """Start the whole service: API, worker and engine. Ctrl-C or SIGTERM stops it.

    Everything it keeps lies in CARREL_DATA_DIR (default ./data). The operator's key is made there at the first start.
    """
    from api.cli.demo import greet
    from api.processes import end_with_parent
    from api.supervisor import Supervisor
    from config.logs import configure_logging

    if supervised:
        end_with_parent()
    settings = Settings()
    configure_logging("supervisor", settings.log_level)

    def ready(url: str) -> None:
        if as_json:
            print(json.dumps({"ready": True, "url": url}), flush=True)
        else:
            greet(settings, url, with_tenant=demo)

    sys.exit(Supervisor(settings, on_ready=ready).run())


def api(
    fd: Annotated[int | None, typer.Option(hidden=True, help="Inherited listening socket.")] = None,
    supervised: Supervised = False,
) -> None:
    """Run the HTTP API alone. Several may share a database and a data directory."""
    from api.processes import end_with_parent, run_api

    if supervised:
        end_with_parent()
    run_api(Settings(), None if fd is None else socket.socket(fileno=fd))


def worker(supervised: Supervised = False) -> None:
    """Run the worker alone: it parses, splits, embeds and indexes documents."""
    from api.processes import end_with_parent, run_worker

    if supervised:
        end_with_parent()
    run_worker(Settings())


def engine(supervised: Supervised = False) -> None:
    """Run the vector engine alone."""
    from api.processes import end_with_parent, run_engine

    if supervised:
        end_with_parent()
    run_engine(Settings())
