"""`carrel doctor`: what is wrong, and what to do about it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from api.cli.common import AsJson, out, print_json, service_url
from api.version import VERSION
from config.errors import CarrelError
from config.settings import Settings

if TYPE_CHECKING:
    from rag.embedding.runtime import Embedder

VENDORS = ("qdrant-edge-py", "dbos", "sqlmodel", "openvino", "sentence-transformers", "torch", "tiktoken", "diskcache")


@dataclass(frozen=True)
class Finding:
    part: str
    ok: bool
    detail: str
    advice: str | None = None


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Compare everything that derives from SQL with it, and mend what differs."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check versions, disk, keys, parsers, database, model and engine; say what is wrong and what to do. Exits 1 if any is.

    With --repair: lost vectors are made again (no tenant is charged), points and contents of nothing are deleted, lost
    jobs are taken up, sums are corrected. It works while the service runs and while it is stopped. Exits 1 if something
    remains that cannot be mended.
    """
    from api.cli import repair as repairing

    settings = Settings()
    if repair:
        sys.exit(0 if repairing.repair(settings, as_json=as_json) else 1)
    findings = [_guarded(check, settings) for check in CHECKS]
    if all(finding.ok for finding in findings if finding.part in ("database", "model", "engine")) and _exists(settings):
        findings.append(_guarded(_data, settings))
    if as_json:
        print_json({"ok": all(finding.ok for finding in findings), "findings": findings_as_dicts(findings)})
    else:
        for finding in findings:
            mark = "[green]ok  [/green]" if finding.ok else "[red]FAIL[/red]"
            out.print(f"{mark} {finding.part:9} {escape(finding.detail)}")
            if finding.advice:
                out.print(f"     {'':9} → {escape(finding.advice)}")
    if not all(finding.ok for finding in findings):
        sys.exit(1)


def _exists(settings: Settings) -> bool:
    return settings.database_url is not None or settings.database_file.exists()


@functools.cache
def _embedder() -> Embedder:
    """The model, loaded once for the checks that need it."""
    from api.wiring.embedders import build_embedder

    return build_embedder(Settings())


def _data(settings: Settings) -> Finding:
    from api.cli.repair import look, said

    report = look(settings, _embedder())
    if report.whole:
        return Finding("data", True, "engine, queue, contents and sums agree with SQL")
    advice = dict.fromkeys(finding.advice for finding in report.findings if finding.advice)
    return Finding("data", False, "; ".join(map(said, report.findings)), " ".join(advice))


def findings_as_dicts(findings: list[Finding]) -> list[dict[str, object]]:
    return [{"part": f.part, "ok": f.ok, "detail": f.detail, "advice": f.advice} for f in findings]


def _guarded(check: Callable[[Settings], Finding], settings: Settings) -> Finding:
    try:
        return check(settings)
    except CarrelError as error:
        return Finding(check.__name__.strip("_"), False, error.detail, "Follow the message above, then run doctor again.")


def _versions(_settings: Settings) -> Finding:
    found = []
    for name in VENDORS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} missing")
    python = ".".join(map(str, sys.version_info[:3]))
    return Finding("versions", sys.version_info >= (3, 11), f"carrel {VERSION}, Python {python}, {', '.join(found)}")


def _disk(settings: Settings) -> Finding:
    from api.processes.readiness import MAKE_ROOM
    from ingestion.intake.admission import DiskMark, disk_of

    folder = settings.data_dir.resolve()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free, least = DiskMark(disk_of(existing), settings.disk_free_bytes, settings.disk_free_percent).room()
    detail = f"{folder}: {free / 1e9:.1f} GB free"
    if free < least:
        refused = f"{detail}, of {least / 1e9:.1f} needed: new documents are refused"
        return Finding("disk", False, refused, MAKE_ROOM)
    return Finding("disk", True, detail)


def _secrets(settings: Settings) -> Finding:
    from config.secrets import build_vault, find_master_key

    found = find_master_key(settings)
    if found.key is None:
        return Finding("secrets", True, f"no master key yet: the first start makes {found.source}")
    detail = f"master key {build_vault(settings).key_id} from {found.source}"
    path = settings.master_key_file
    if found.source == str(path) and path.stat().st_mode & 0o077:
        return Finding("secrets", False, detail, f"Others may read it: chmod 600 {path}")
    return Finding("secrets", True, detail)


def _database(settings: Settings) -> Finding:
    from sqlalchemy.exc import SQLAlchemyError

    from api.schema import revision
    from config.database import Database

    if not _exists(settings):
        return Finding("database", True, "SQLite, not made yet: the first start makes it")
    database = Database(settings.sql_url)
    try:
        current, newest = revision(database)
    except SQLAlchemyError as error:
        return Finding("database", False, type(error).__name__, "Check CARREL_DATABASE_URL and that the server runs.")
    finally:
        database.close()
    if current != newest:
        advice = "Start the service: it brings the schema up to date."
        return Finding("database", False, f"schema {current}, this version needs {newest}", advice)
    return Finding("database", True, f"{database.engine.dialect.name}, schema {current}")


def _model(_settings: Settings) -> Finding:
    model = _embedder().model
    fingerprint = model.fingerprint
    return Finding(
        "model",
        True,
        f"{model.name}: {model.where}; {fingerprint.dimensions} dimensions, {fingerprint.space.id}",
    )


def _engine(settings: Settings) -> Finding:
    from api.wiring.core import build_store

    store = build_store(settings, patience_s=0, timeout_s=5)
    health = store.health()
    store.close()
    if health.ok:
        points = ", ".join(f"{space}: {count} points" for space, count in health.spaces.items()) or "no points yet"
        return Finding("engine", True, points)
    return Finding("engine", False, health.detail, "Start it with `carrel serve`; its log says why it stopped, if it did.")


def _sandbox(settings: Settings) -> Finding:
    from api.wiring.core import build_sandbox

    sandbox = build_sandbox(settings)
    try:
        found = sandbox.confinement()
    finally:
        sandbox.close()
    if not found.remains():
        return Finding("sandbox", True, f"parsers are confined by {found}")
    advice = (
        "Linux 5.13 with Landlock, and seccomp and user namespaces that the container allows, give the rest: docs/operations.md"
    )
    return Finding("sandbox", found.seccomp, f"parsers are confined by {found}; {'; '.join(found.remains())}", advice)


def _service(settings: Settings) -> Finding:
    from carrel_client import Carrel, CarrelClientError

    url = service_url(settings)
    with Carrel(api_key="none-needed", base_url=url, timeout_s=5, max_retries=0) as client:
        try:
            client.ready()
        except CarrelClientError as error:
            return Finding("service", False, str(error), "Start it with `carrel serve`, or set CARREL_URL.")
    return Finding("service", True, f"{url} is ready")


CHECKS = (_versions, _disk, _secrets, _sandbox, _database, _model, _engine, _service)
