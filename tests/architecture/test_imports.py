"""Who may import, read or bypass what: the layers, the vendors' one file each, and the doors past the tenants' wall."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[2]
PRODUCT = ("config", "tenants", "rag", "ingestion", "api", "client/src")
VERSIONS = "api/migrations/versions"

#: Each vendor, with the only files that may import it.
VENDORS = {
    "qdrant_edge": {"rag/store/edge.py", "rag/store/edge_vectors.py"},
    "qdrant_client": {"rag/store/qdrant.py"},
    "torch": {"rag/embedding/local/torch_runtime.py", "rag/embedding/local/conversion.py", "rag/rerank/local.py"},
    "sentence_transformers": {
        *("rag/embedding/local/torch_runtime.py", "rag/embedding/local/conversion.py", "rag/rerank/local.py")
    },
    "transformers": {"rag/embedding/local/torch_runtime.py", "rag/rerank/local.py"},
    "openvino": {"rag/embedding/local/openvino_runtime.py", "rag/embedding/local/conversion.py"},
    "huggingface_hub": {"rag/embedding/local/models.py"},
    "diskcache": {"rag/embedding/cache_file.py"},
    "tree_sitter": {"rag/splitting/grammars.py"},
    "tiktoken": {"rag/tokens.py"},
    "orjson": {
        "rag/store/wire.py",
        "config/database.py",
        "rag/traces/left.py",
        "rag/sessions/archives.py",
        "api/routes/erasures.py",
    },
    "dbos": {"ingestion/queue/durable.py"},
    "pypdfium2": {"ingestion/readers/pdf.py", "ingestion/readers/pdf_hidden.py"},
    "bs4": {"ingestion/readers/html.py", "ingestion/readers/page_parts.py"},
    "charset_normalizer": {"ingestion/readers/text.py"},
    "docx": {"ingestion/readers/docx.py", "ingestion/readers/docx_styles.py"},
    "lxml": {f"ingestion/readers/{name}.py" for name in ("archives", "docx", "docx_styles", "epub", "odt")},
    "pptx": {"ingestion/readers/pptx.py"},
    "openpyxl": {"ingestion/readers/xlsx.py"},
    "markdownify": {"ingestion/readers/html.py"},
    "jwt": {"tenants/identity/tokens.py", "tenants/identity/oidc.py", "tenants/identity/oidc_keys.py"},
    "limits": {"api/middleware/audit.py"},
    "alembic": {"api/schema.py", "api/migrations/env.py"},
    "uvicorn": {"api/processes/api.py"},
    "httpcore2": {"ingestion/fetch/connections.py", "ingestion/fetch/fetcher.py"},
    "idna": {"ingestion/fetch/addresses.py"},
    "langchain_core": {f"client/src/carrel_client/{name}.py" for name in ("langchain", "langchain_history")},
    "llama_index": {"client/src/carrel_client/llama_index.py"},
    "httpx2": {
        *(f"client/src/carrel_client/{world}/{name}.py" for world in ("_async", "_sync") for name in ("client", "transport")),
        *("client/src/carrel_client/tls.py", "rag/posting.py", "api/mcp/bridge.py"),
    },
}

#: Code that acts before a tenant is known or across tenants.
WITHOUT_A_TENANT = {
    "ingestion/reconciler.py",  # counts indexed chunks
    "ingestion/repair/blobs.py",  # a stored content does not say whose it is
    "ingestion/repair/former.py",  # whose former versions are to go
    "ingestion/placement.py",  # which collections are to lie by themselves, whoever's they are
    "rag/sessions/sweeping.py",  # whose sessions are over; each is ended and removed in a session of its tenant
    "rag/sessions/compacting.py",  # whose turns have left the window; each piece is written in a session of its tenant
    "rag/traces/old_vectors.py",  # who has such vectors; those of each piece go in a session of its tenant
    "ingestion/jobs/instances.py",  # processes belong to no tenant
    "ingestion/queue/taking.py",  # names the tenants of jobs that a former version enqueued
    "tenants/registry.py",
    "tenants/secrets.py",  # finding what a former master key sealed; each is changed in a session of its tenant
    "tenants/identity/keys.py",
    "tenants/identity/changes.py",  # of keys and tenants, whoever's they are
    "tenants/limits/shared_rates.py",  # buckets of keys and tenants, told from process to process
    "tenants/idempotency.py",  # operators' requests, and deleting what is a day old
    "ingestion/statistics.py",  # sums over all tenants
    "tenants/audit/record.py",  # operators' requests
    "tenants/audit/sealer.py",  # chains whatever was appended, whose ever it is
    "tenants/events.py",  # old events are purged whoever they belong to
    "tenants/webhooks/outbox.py",  # finding endpoints that wait, and purging; each is served in a session of its tenant
    "tenants/limits/overrides.py",  # the operator's, as the registry is
    "tenants/deletions.py",
    "ingestion/stores/upkeep.py",  # which tenants have something to be finished; each is served in sessions of its own
    "ingestion/removal/tenants.py",  # of a tenant that is being deleted: all tables, also those that are no tenant's own
    "ingestion/erasing/removal.py",  # which sessions are over; each is removed in sessions of its tenant
    "ingestion/conversations/turn_vectors.py",  # which tenants have turns that wait for a vector
    "tenants/ledger/anomalies.py",  # which tenants used anything; each is looked at in a session of its own
    "tenants/ledger/policy.py",  # what the operator sets for a tenant
    "tenants/ledger/budget.py",  # finding holds whose lease ran out; each is ended in a session of its tenant
    "rag/collections.py",  # spaces belong to nobody
    "rag/memories/removal.py",  # finding what is to be forgotten, whoever's it is; each tenant's goes in a session of its own
    "rag/traces/erasing.py",  # which tenants have traces; each one's are swept in a session of its own
}


@cache
def _trees() -> dict[str, ast.Module]:
    """Every module of the product by its path, without the revisions of the schema."""
    paths = sorted(path for folder in PRODUCT for path in (ROOT / folder).rglob("*.py"))
    names = {path.relative_to(ROOT).as_posix(): path for path in paths}
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in names.items() if VERSIONS not in name}


LOOKED_AT = (ast.Import, ast.ImportFrom, ast.Attribute, ast.Name, ast.Call)


@cache
def _nodes() -> dict[str, list[ast.AST]]:
    """Of each module those that can import, name or call something: walked once, because they are asked fifty times."""
    return {name: [node for node in ast.walk(tree) if isinstance(node, LOOKED_AT)] for name, tree in _trees().items()}


def _where(meets: Callable[[ast.AST], bool]) -> set[str]:
    return {name for name, nodes in _nodes().items() if any(map(meets, nodes))}


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module is not None:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def _imports() -> dict[str, set[str]]:
    """The packages that each module imports something of."""
    return {path: {name.partition(".")[0] for node in nodes for name in _imported(node)} for path, nodes in _nodes().items()}


def _uses(*names: str) -> Callable[[ast.AST], bool]:
    """Whether a node names one of these, as a variable, an attribute or an import."""

    def meets(node: ast.AST) -> bool:
        used = [*_imported(node)]
        if isinstance(node, ast.Attribute):
            used.append(node.attr)
        elif isinstance(node, ast.Name):
            used.append(node.id)
        return any(name.rpartition(".")[2] in names for name in used)

    return meets


def test_the_walk_sees_the_product() -> None:
    assert len(_trees()) > 60
    assert _where(_uses("Settings")) > {"api/processes/worker.py", "api/wiring/core.py"}


def test_the_layers_keep_to_their_contracts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    failed = lint_imports(no_cache=True)
    report = capsys.readouterr().out
    assert not failed, report
    assert "0 broken" in report


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_vendor_is_imported_in_its_own_files_only(vendor: str) -> None:
    assert {path for path, names in _imports().items() if vendor in names} == VENDORS[vendor]


def test_nothing_is_imported_by_a_name_that_is_made_up_at_run_time() -> None:
    lazily = {"client/src/carrel_client/__init__.py"}  # of its own modules, by a table
    assert _where(_uses("import_module", "__import__", "importlib.import_module")) == lazily


def test_the_environment_is_read_in_the_settings_only() -> None:
    found = _where(_uses("environ", "environb", "getenv", "getenvb", "putenv"))
    clients = {f"client/src/carrel_client/{world}/client.py" for world in ("_async", "_sync")}
    assert found == {*clients, "api/processes/local.py"}  # pydantic reads it for config/settings.py


def test_a_session_without_a_tenant_is_opened_in_few_places() -> None:
    assert _where(_uses("system_read", "system_write")) == WITHOUT_A_TENANT


def _calls(node: ast.AST, *names: str) -> bool:
    """Whether a node calls one of these, written out with the module where there is one."""
    if not isinstance(node, ast.Call):
        return False
    last = getattr(node.func, "attr", getattr(node.func, "id", None))
    return last in {name.rpartition(".")[2] for name in names} and ast.unparse(node.func) in names


#: What reads turns and meets none that is compacted, or nothing of it that lies elsewhere.
READS_NO_OLD_TURNS = {
    "rag/sessions/appending.py",  # writes them; of those that are there, ids, times and digests
    "rag/sessions/room.py",  # numbers and tokens
    "rag/sessions/values.py",  # names the type
    "rag/recall/loading.py",  # of the window; of others that one moment let in, it would index nothing. `again` reads by itself
    "rag/recall/recall.py",  # of the window, by its statement
    "rag/context/turns.py",  # shows what it is given
    "rag/sessions/finding.py",  # reads none itself
    "ingestion/conversations/turn_vectors.py",  # of those behind `embedded_turns`, which reaches as far as `compacted_turns`
    "api/schemas/sessions.py",  # shows what it is given
}


def test_whoever_reads_turns_asks_for_what_old_ones_said() -> None:
    read = {"rag.sessions.tables.Turn", "rag.sessions.finding.BEHIND"}
    readers = _where(lambda node: not read.isdisjoint(_imported(node)))
    restoring = {"rag/sessions/archives.py"} | _where(lambda node: "rag.sessions.archives" in _imported(node))
    assert readers - restoring == READS_NO_OLD_TURNS


def test_no_statement_is_written_as_text() -> None:
    written = _where(lambda node: _calls(node, "text", "sa.text", "sqlalchemy.text", "sqlmodel.text"))
    assert written <= {
        "rag/corpus.py",
        "rag/sessions/tables.py",
        "config/database.py",
        "ingestion/queue/taking.py",
    }  # partial indexes
    assert _where(_uses("exec_driver_sql")) <= {
        "config/database.py",
        "api/row_security.py",
    }


def test_nothing_is_pickled_or_evaluated() -> None:
    assert _where(lambda node: not {"pickle", "marshal", "shelve", "dill"}.isdisjoint(_imported(node))) == set()
    assert _where(lambda node: _calls(node, "eval", "exec")) == set()


def test_only_the_wall_itself_uses_a_sessions_connection() -> None:
    assert _where(lambda node: _calls(node, "session.connection")) == {"config/database.py", "config/kept.py"}
