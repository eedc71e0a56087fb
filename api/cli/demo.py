"""`carrel demo`: two tenants, real documents, real questions, and the walls between them."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from api.cli.common import out
from api.cli.documents import show_passage
from api.cli.sources import Rules, find_files
from api.cli.uploads import Uploads
from api.processes.local import LocalService, local_service
from carrel_client import Carrel, NotFoundError
from config.errors import SetupError
from config.settings import Settings


def register(app: typer.Typer) -> None:
    app.command()(demo)


@dataclass(frozen=True)
class Room:
    """A tenant of the demonstration: its documents and questions that they answer."""

    tenant: str
    folder: Path
    questions: tuple[str, ...]


def demo(
    docs: Annotated[Path, typer.Option(help="Folder of the first tenant.")] = Path("docs"),
    handbook: Annotated[Path, typer.Option(help="Folder of the second tenant.")] = Path("examples/handbook"),
) -> None:
    """Show it all in a throw-away service: two tenants ingest and ask, neither reaches the other. Exits 0 if all holds."""
    rooms = (
        Room(
            "makers",
            docs,
            (
                "How is one tenant kept from reading another tenant's data?",
                "What happens when the token budget is used up?",
                "Which settings can be changed?",
            ),
        ),
        Room(
            "library",
            handbook,
            (
                "How long may I keep a borrowed book?",
                "Who may enter the map room?",
                "What does a lost book cost?",
            ),
        ),
    )
    for room in rooms:
        if not room.folder.is_dir():
            raise SetupError(f"There is no folder {room.folder}; run this from a checkout, or pass --docs and --handbook.")
    began = time.monotonic()
    out.print("Starting a service of its own …")
    models = Settings().prepared_models.resolve()  # what is prepared here is there for `carrel serve` too
    with (
        tempfile.TemporaryDirectory(prefix="carrel-demo-") as folder,
        local_service(Path(folder), models_dir=models) as service,
    ):
        result = _show(rooms, service)
    result["seconds"] = round(time.monotonic() - began, 1)
    print(json.dumps(result))
    if result["leaks"] or result["answered"] != result["queries"]:
        sys.exit(1)


def _show(rooms: tuple[Room, ...], service: LocalService) -> dict[str, float]:
    clients = {room.tenant: service.tenant(room.tenant) for room in rooms}
    ingested = {}
    for room in rooms:
        out.rule(f"{room.tenant}: ingest {room.folder}")
        uploads = Uploads(clients[room.tenant], collection="default")
        uploads.bring(find_files([room.folder], Rules()).files)
        ingested[room.tenant] = uploads.summary
    own = {tenant: {document.id for document in client.documents.list()} for tenant, client in clients.items()}
    answered = leaks = queries = 0
    for room in rooms:
        out.rule(f"{room.tenant}: ask")
        for question in room.questions:
            queries += 1
            passages = clients[room.tenant].query(question, top_k=2).passages
            out.print(f"[bold cyan]{question}[/bold cyan]\n")
            for rank, passage in enumerate(passages, 1):
                show_passage(rank, passage)
            cited = [clients[room.tenant].documents.text(p.document_id)[p.start : p.end] == p.text for p in passages]
            answered += bool(passages) and all(cited)
    out.rule("isolation: every question to the other tenant, every id from the other tenant")
    for room in rooms:
        for other, client in clients.items():
            if other != room.tenant:
                leaks += _leaks(client, room, own[other], own[room.tenant])
    out.print(f"{leaks} passages or documents of the other tenant were reachable.")
    documents = sum(summary.documents for summary in ingested.values())
    return {"tenants": len(rooms), "documents": documents, "queries": queries, "answered": answered, "leaks": leaks}


def _leaks(client: Carrel, room: Room, own: set[str], foreign: set[str]) -> int:
    leaked = 0
    for question in room.questions:
        leaked += sum(passage.document_id not in own for passage in client.query(question, top_k=50).passages)
    for document_id in foreign:
        with contextlib.suppress(NotFoundError):
            client.documents.get(document_id)
            leaked += 1
    return leaked
