"""What `carrel doctor` says of the data, and `--repair`: the engine, the queue, contents and sums compared with SQL."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import Progress

from api.cli.common import notes, out, print_json
from config.errors import EngineUnavailable, SetupError
from config.settings import Settings

if TYPE_CHECKING:
    from ingestion.repair.report import Finding, Report
    from rag.embedding.runtime import Embedder

ENGINE_LOOK_S = 0.05


def look(settings: Settings, embedder: Embedder) -> Report:
    """What a repair would find, by counts first. The schema must be this version's, and the engine must answer."""
    from api.wiring.worker import open_reconciler

    with open_reconciler(settings, embedder) as reconciler:
        return reconciler.check(repair=False, quick=True)


def repair(settings: Settings, *, as_json: bool) -> bool:
    """Compare everything, mend what can be mended, and print it. False if something remains."""
    from api.wiring.embedders import build_embedder
    from api.wiring.worker import open_reconciler
    from ingestion.repair.report import Report

    if settings.database_url is None and not (settings.data_dir / "carrel.db").exists():
        report = Report()
    else:
        embedder = build_embedder(settings)
        with engine_at_hand(settings), open_reconciler(settings, embedder) as reconciler, _bar(shown=not as_json) as progress:
            report = reconciler.check(repair=True, progress=progress)
    if as_json:
        findings = [_as_dict(finding) for finding in report.findings]
        print_json({"ok": report.whole, "tokens_embedded": report.tokens, "findings": findings})
    else:
        _print(report)
    return report.whole


@contextlib.contextmanager
def engine_at_hand(settings: Settings) -> Iterator[None]:
    """An engine that answers: the one that runs, or else one for as long as this lasts."""
    from api.processes.plans import EnginePlan
    from api.processes.supervisor import STOP_S, engine_child, stop
    from api.wiring.core import build_store

    store = build_store(settings, patience_s=0, timeout_s=5)
    engine = engine_child(EnginePlan.of(settings))
    try:
        if not store.health().ok and settings.vector_backend == "engine":
            engine.start()
        while not (health := store.health()).ok:
            if engine.process is None:
                raise EngineUnavailable(health.detail)
            if engine.died() is not None:
                raise SetupError("The engine did not start; its messages above say why.")
            time.sleep(ENGINE_LOOK_S)
        yield
    finally:
        store.close()
        stop([engine], STOP_S["engine"])


@contextlib.contextmanager
def _bar(*, shown: bool) -> Iterator[Callable[[int, int], None]]:
    with Progress(console=notes, transient=True, disable=not shown) as progress:
        task = progress.add_task("Comparing with SQL", total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)


def _print(report: Report) -> None:
    for finding in report.findings:
        mark = "[green]mended [/green]" if finding.repaired else "[red]REMAINS[/red]"
        out.print(f"{mark} {escape(said(finding))}")
        if finding.advice:
            out.print(f"        → {escape(finding.advice)}")
    if report.tokens:
        out.print(f"{report.tokens} tokens were embedded again; no tenant is charged for them.")
    if not report.findings:
        out.print("Engine, queue, contents and sums agree with SQL: nothing to repair.")


def said(finding: Finding) -> str:
    """One line, as "12 of tenant ten_…: points in the engine had no chunk in SQL"."""
    from ingestion.repair.report import KINDS

    owner = f" of tenant {finding.tenant_id}" if finding.tenant_id else ""
    example = f" (such as {finding.subject})" if finding.subject else ""
    return f"{finding.count}{owner}: {KINDS[finding.kind]}{example}"


def _as_dict(finding: Finding) -> dict[str, object]:
    return {
        "kind": finding.kind,
        "tenant_id": finding.tenant_id,
        "count": finding.count,
        "subject": finding.subject,
        "repaired": finding.repaired,
        "detail": said(finding),
        "advice": finding.advice,
    }
