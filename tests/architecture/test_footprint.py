"""What each process has no use for is not in its memory: seen in a fresh interpreter that goes as far as the process does."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.wiring.core import build_core
from config.settings import Settings

COMMAND_LINE = {"typer", "rich", "pygments", "httpx2", "carrel_client"}
WEB = {"fastapi", "starlette", "uvicorn", "limits"}
SQL = {"sqlalchemy", "sqlmodel", "alembic", "dbos", "psycopg"}
MODEL = {"torch", "transformers", "sentence_transformers", "sklearn", "scipy", "huggingface_hub"}
READERS = {"bs4", "lxml", "pypdfium2", "markdownify", "charset_normalizer"}
OFFICE = {"docx", "pptx", "openpyxl", "PIL"}
VECTORS = {"qdrant_edge", "qdrant_client"}
REST = {"numpy", "pydantic", "pydantic_settings", "cryptography", "tokenizers", "tiktoken", "asyncio"}


@dataclass(frozen=True)
class Process:
    run: str  #: what it runs until it would serve; `folder` is a data directory of this version
    without: set[str]
    uses: str  #: a module that it must have, or else nothing was seen


PROCESSES = {
    "supervisor": Process(
        "import api.processes.__main__, api.processes.supervisor",
        COMMAND_LINE | WEB | SQL | MODEL | READERS | OFFICE | VECTORS | REST,
        "api.processes.supervisor",
    ),
    "the command line": Process("import api.cli.main", WEB | SQL | MODEL | READERS | OFFICE | VECTORS | {"numpy"}, "typer"),
    "engine": Process(
        "import api.processes.__main__, api.processes.engine as engine; engine.EdgeStore(folder)",
        COMMAND_LINE | WEB | SQL | MODEL | READERS | OFFICE | (REST - {"numpy", "asyncio"}) | {"qdrant_client"},
        "qdrant_edge",
    ),
    "worker": Process(
        "import api.processes.__main__, api.processes.worker as worker; worker.build_worker(settings, 'seen').worker.start()",
        COMMAND_LINE | WEB | MODEL | READERS | OFFICE | VECTORS | {"alembic"},
        "dbos",
    ),
    "api": Process(
        "import api.processes.__main__, api.processes.api as api; api.create_service(api.build_api(settings))",
        COMMAND_LINE | MODEL | READERS | OFFICE | VECTORS | {"alembic"},
        "fastapi",
    ),
    "zygote": Process(
        "import ingestion.readers.zygote",
        COMMAND_LINE | WEB | SQL | MODEL | VECTORS | REST | OFFICE,
        "pypdfium2",
    ),
    "zygote, after an office file of each kind": Process(
        "import ingestion.readers.zygote as zygote; [zygote.registry.load(kind) for kind in zygote.registry.LATE]",
        COMMAND_LINE | WEB | SQL | MODEL | VECTORS | REST,
        "openpyxl",
    ),
}

SETTINGS = "from config.settings import Settings; settings = Settings(data_dir=folder, embedding_runtime='hash')"
SEEN = "print(json.dumps(sorted(sys.modules)), flush=True); os._exit(0)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    build_core(Settings(data_dir=folder)).database.close()
    return folder


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_loads_only_what_it_runs(folder: Path, name: str) -> None:
    process = PROCESSES[name]
    lines = ["import json, os, sys; from pathlib import Path", f"folder = Path({str(folder)!r})", process.run, SEEN]
    if "settings" in process.run:
        lines.insert(2, SETTINGS)
    done = subprocess.run([sys.executable, "-P", "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    modules = set(json.loads(done.stdout.splitlines()[-1]))
    assert process.uses in modules
    assert process.without & modules == set()
