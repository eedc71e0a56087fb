"""What a neighbour beyond its rate limit costs a quiet tenant, and what the way in costs each question."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.app import create_app, create_service
from api.processes.local import LocalService, local_service
from api.wiring.api import ApiServices, build_api
from benchmarks.corpus import Writer
from benchmarks.harness import BenchmarkError, median, pairwise, percentile, shown
from benchmarks.report import Figures
from benchmarks.workload import SERVICE, ask, fill, tokenizer_of
from carrel_client import Carrel
from config.ids import new_id
from config.settings import Settings
from tenants.identity.authenticator import Identity
from tenants.limits.rates import OperationClass

LIMIT = 20  #: requests a second of each key
BEYOND = 10  #: times that is what the flood sends
PACE = 10.0  #: questions a second of the quiet tenant
WARM_UP, AT_ONCE = 30, 4
DOCUMENTS, CHUNKS = 20, 20


@dataclass(frozen=True)
class Plan:
    """`queries`: of one side in one round."""

    queries: int
    repeats: int
    runtime: str
    seed: int


def run(plan: Plan) -> Figures:
    writer = Writer(plan.seed, tokenizer_of(plan.runtime))
    return _neighbour(plan, writer) | _middlewares(plan, writer)


@contextmanager
def _filled(plan: Plan, writer: Writer, **settings: object) -> Iterator[tuple[LocalService, Carrel, Carrel]]:
    chosen = {**SERVICE, "embedding_runtime": plan.runtime, **settings}
    with tempfile.TemporaryDirectory(prefix="carrel-way-in-") as data, local_service(Path(data), **chosen) as service:
        with service.tenant("loud") as loud, service.tenant("quiet") as quiet:
            for client in (loud, quiet):
                fill(client, writer.documents(DOCUMENTS, CHUNKS, prefix="text"))
            yield service, loud, quiet


# --- a neighbour beyond its limit


def _neighbour(plan: Plan, writer: Writer) -> Figures:
    with _filled(plan, writer, requests_per_second=LIMIT, rate_tokens=1_000_000) as (service, _, quiet):
        with service.admin() as admin:
            key = admin.admin.keys.create(tenant="loud", name="flood", scopes=["query"]).secret
        for question in writer.questions(WARM_UP):
            ask(quiet, question)
        rounds = [_round(plan, writer, service, quiet, key) for _ in shown(range(plan.repeats), "neighbour", plan.repeats)]
    return {
        "p95_ratio_quiet_neighbour": median(busy / alone for alone, busy, _ in rounds),
        "quiet_p95_ms": median(alone for alone, _, _ in rounds),
        "neighbour_p95_ms": median(busy for _, busy, _ in rounds),
        "flood_refused_fraction": median(refused for _, _, refused in rounds),
    }


def _round(plan: Plan, writer: Writer, service: LocalService, quiet: Carrel, key: str) -> tuple[float, float, float]:
    alone = _paced(quiet, writer.questions(plan.queries))
    questions = writer.questions(plan.queries)
    arguments = [service.url, key, str(LIMIT * BEYOND), str(plan.queries / PACE + 2)]
    command = [sys.executable, "-m", "benchmarks.flooding", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as flood:
        time.sleep(1.0)  # it has spent its burst by then
        busy = _paced(quiet, questions)
        if flood.poll() is not None:
            raise BenchmarkError("The flood was over before the quiet tenant was done.")
        answers = json.loads(flood.communicate()[0])
    refused = answers.get("429", 0) / sum(answers.values())
    return percentile(alone, 95), percentile(busy, 95), refused


def _paced(client: Carrel, questions: Sequence[str]) -> list[float]:
    begin, waits = time.monotonic(), []
    for number, question in enumerate(questions):
        time.sleep(max(0.0, begin + number / PACE - time.monotonic()))
        waits.append(ask(client, question).wall_ms)
    return waits


# --- the middlewares, in this process: without a socket their share is the larger


class _Bare:
    """The application with an identity, as if it had been found out for nothing."""

    def __init__(self, app: Any, identity: Identity) -> None:
        self._app, self._identity = app, identity

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        scope["state"] = {"identity": self._identity, "request_id": "req_bench", "address": "127.0.0.1"}
        await self._app(scope, receive, send)


def _middlewares(plan: Plan, writer: Writer) -> Figures:
    with _filled(plan, writer) as (service, _, _quiet):
        with service.admin() as admin:
            key = admin.admin.keys.create(tenant="quiet", name="in process", scopes=["query"]).secret
        chosen: dict[str, Any] = {**SERVICE, "embedding_runtime": plan.runtime, "requests_per_second": 1_000_000}
        services = build_api(Settings(data_dir=service.data_dir, **chosen))
        try:
            return asyncio.run(_compared(plan, writer, services, key))
        finally:
            services.close()


async def _compared(plan: Plan, writer: Writer, services: ApiServices, key: str) -> Figures:
    identity = services.identifier.identify(key)
    apps: dict[str, Callable[..., Awaitable[None]]] = {
        "with": create_service(services),
        "without": _Bare(create_app(services), identity),
    }
    for app in apps.values():
        await _per_second(app, key, writer.questions(WARM_UP))
    speeds: dict[str, list[float]] = {name: [] for name in apps}
    for number in range(2 * plan.repeats):
        for name in sorted(apps, reverse=number % 2 == 1):
            speeds[name].append(await _per_second(apps[name], key, writer.questions(plan.queries)))
    return {
        "middleware_cost_fraction": 1 - pairwise(speeds["with"], speeds["without"]),
        "queries_per_s_with_middlewares": median(speeds["with"]),
        "checks_p50_ms": await _checks_ms(services, identity),
    }


async def _per_second(app: Callable[..., Awaitable[None]], key: str, questions: Sequence[str]) -> float:
    async def share(number: int) -> None:
        for question in questions[number::AT_ONCE]:
            await _call(app, key, json.dumps({"query": question}).encode())

    began = time.perf_counter()
    await asyncio.gather(*map(share, range(AT_ONCE)))
    return len(questions) / (time.perf_counter() - began)


async def _call(app: Callable[..., Awaitable[None]], key: str, body: bytes) -> None:
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json", "content-length": str(len(body))}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/query",
        "raw_path": b"/v1/query",
        "root_path": "",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)

    await app(scope, receive, send)
    if status != 200:
        raise BenchmarkError(f"A question was answered {status}.")


async def _checks_ms(services: ApiServices, identity: Identity) -> float:
    """What the rates, a place and the budget take of one question."""
    assert identity.tenant is not None
    gates, meter, times = services.gates, services.core.ledger.for_tenant(identity.tenant, "query"), []
    for _ in range(200):
        began = time.perf_counter()
        limits = await gates.rates.limits_of(identity)
        gates.rates.rates.take(gates.rates.holding(identity, limits, OperationClass.QUERY))
        await gates.bulkheads.enter(OperationClass.QUERY, "t")
        gates.bulkheads.leave(OperationClass.QUERY, "t")
        meter.debit(new_id("charge"), 10)
        times.append((time.perf_counter() - began) * 1000)
    return percentile(times, 50)
