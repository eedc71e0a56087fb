"""`carrel serve`, and the three processes alone. Each takes this one's place."""

from __future__ import annotations

import os
from typing import Annotated, NoReturn

import typer

from api.cli.common import AsJson
from api.processes.plans import EnginePlan, Greeting, ServicePlan, command_of
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
    greeting: Greeting = "json" if as_json else "demo" if demo else "text"
    _become("serve", "--plan", ServicePlan.of(Settings(), greeting).text(), supervised=supervised)


def api(
    fd: Annotated[int | None, typer.Option(hidden=True, help="Inherited listening socket.")] = None,
    supervised: Supervised = False,
) -> None:
    """Run the HTTP API alone. Several may share a database and a data directory."""
    Settings()  # a wrong one is told here
    _become("api", *([] if fd is None else ["--fd", str(fd)]), supervised=supervised)


def worker(supervised: Supervised = False) -> None:
    """Run the worker alone: it parses, splits, embeds and indexes documents."""
    Settings()
    _become("worker", supervised=supervised)


def engine(supervised: Supervised = False) -> None:
    """Run the vector engine alone."""
    _become("engine", "--plan", EnginePlan.of(Settings()).text(), supervised=supervised)


def _become(process: str, *arguments: str, supervised: bool) -> NoReturn:
    """Run it in this process's place, whose libraries for the command line would take 30 MB for as long as it serves."""
    command = command_of(process, *arguments, *(["--supervised"] if supervised else []))
    os.execv(command[0], command)  # noqa: S606  our own command line
