"""Many tenants on one service: what the others cost one of them, beside a service that holds that one alone and beside
stores with a tenant column; and whether anybody ever sees another's passage."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from api.processes.local import LocalService, local_service
from benchmarks.corpus import Writer
from benchmarks.harness import BenchmarkError, Side, alternate, in_parallel, median, pairwise
from benchmarks.peers import Asking, Handle, Shelf, VectorPeer, open_peers, unit_vectors
from benchmarks.report import Figures, Peer, Report
from benchmarks.workload import IN_FLIGHT, SERVICE, TOP_K, Asked, ask, bring, dimensions_of, tokenizer_of
from carrel_client import Carrel
from rag.store.base import Space

ASKING = 100  #: tenants that are asked in the timed rounds, each over a connection of its own that stays open


@dataclass(frozen=True)
class Plan:
    tenants: int
    chunks_each: int
    queries: int  #: of one side in one round
    repeats: int
    runtime: str
    seed: int


@dataclass(frozen=True)
class Room:
    """A tenant, and the canary that stands in each of its chunks and in nobody else's."""

    url: str
    key: str
    canary: str
    shelf: Shelf
    space: str  #: of its collection

    def client(self) -> Carrel:
        return Carrel(api_key=self.key, base_url=self.url)

    def leaks(self, asked: Asked) -> int:
        return sum(self.canary not in passage.text for passage in asked.passages)


@dataclass(frozen=True)
class Round:
    p50_ms: float  #: of a service outside the model; stores have none
    faults: int  #: of a service leaked passages; of a store rows that are missing or foreign


def run(plan: Plan) -> Report:
    tokenizer = tokenizer_of(plan.runtime)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="carrel-tenants-")))
        settings = {**SERVICE, "embedding_runtime": plan.runtime}
        service = stack.enter_context(local_service(folder / "shared", **settings))
        shared = furnish(service, plan, plan.tenants, tokenizer)
        single = furnish(stack.enter_context(local_service(folder / "single", **settings)), plan, 1, tokenizer)
        leaks = probe(shared)
        stores, peers = open_peers(folder)
        handle = stack.enter_context(closing(_handle(service, shared, plan)))
        sides: dict[str, Side[Round]] = {
            "shared": partial(_carrel_round, _clients(stack, shared, plan.seed), plan, tokenizer),
            "single": partial(_carrel_round, _clients(stack, single, plan.seed), plan, tokenizer),
            "handle": partial(_store_round, handle, plan),
            **{store.name: _loaded(store, plan) for store in stores},
        }
        for side in sides.values():
            side(plan.repeats)  # a round to warm up, with questions of its own
        rounds = alternate(sides, plan.repeats)
    return Report("tenants", _figures(plan, rounds, peers, leaks), peers)


def furnish(service: LocalService, plan: Plan, count: int, tokenizer: str) -> list[Room]:
    """Make tenants of a document each."""
    with service.admin() as admin:

        def one(number: int) -> Room:
            name = f"tenant-{number}"
            tenant = admin.admin.tenants.create(name=name)
            key = admin.admin.keys.create(tenant=name, name="benchmark", scopes=["query", "ingest"])
            document = Writer(plan.seed + number, tokenizer).document("own", plan.chunks_each, mark=_canary(number))
            with Carrel(api_key=key.secret, base_url=service.url) as client:
                loaded = bring(client, document)
                [collection] = client.collections.list()
            if loaded != plan.chunks_each:
                raise BenchmarkError(f"{loaded} chunks were made of a document of {plan.chunks_each}.")
            return Room(service.url, key.secret, _canary(number), Shelf(tenant.id, collection.id), collection.space)

        return in_parallel(one, range(count), threads=IN_FLIGHT, label="loading tenants")


def _canary(number: int) -> str:
    return f"canary{number:06d}"


def probe(rooms: Sequence[Room]) -> int:
    """Every tenant asks for its neighbour's canary by name; what comes back must be its own all the same."""

    def leaks(number: int) -> int:
        with rooms[number].client() as client:
            return rooms[number].leaks(ask(client, f"{rooms[number - 1].canary} report"))

    return sum(in_parallel(leaks, range(len(rooms)), threads=2, label="probing"))


def _handle(service: LocalService, rooms: Sequence[Room], plan: Plan) -> Handle:
    space = Space(rooms[0].space, dimensions_of(plan.runtime))
    return Handle(service.data_dir, space, {room.canary: room.shelf for room in rooms})


def _clients(stack: ExitStack, rooms: Sequence[Room], seed: int) -> list[tuple[Room, Carrel]]:
    asking = random.Random(seed).sample(rooms, min(ASKING, len(rooms)))
    return [(room, stack.enter_context(room.client())) for room in asking]


def _carrel_round(rooms: Sequence[tuple[Room, Carrel]], plan: Plan, tokenizer: str, number: int) -> Round:
    """Questions in turn over the tenants; both services get the same ones."""
    outside, leaks = [], 0
    for at, question in enumerate(Writer(plan.seed - 1 - number, tokenizer).questions(plan.queries)):
        room, client = rooms[at % len(rooms)]
        asked = ask(client, question)
        outside.append(asked.outside_ms)
        leaks += room.leaks(asked)
    return Round(median(outside), leaks)


def _loaded(store: VectorPeer, plan: Plan) -> Side[Round]:
    """As many rows for as many tenants as the service has, of as many dimensions."""
    owners = [_canary(number) for number in range(plan.tenants) for _ in range(plan.chunks_each)]
    vectors = unit_vectors(len(owners), dimensions_of(plan.runtime), plan.seed)
    store.load(owners, [f"{owner}/{number}" for number, owner in enumerate(owners)], vectors)
    return partial(_store_round, store, plan)


def _store_round(store: Asking, plan: Plan, number: int) -> Round:
    expected = min(TOP_K, plan.chunks_each)
    questions = unit_vectors(plan.queries, dimensions_of(plan.runtime), plan.seed + 1 + number)
    tenants = random.Random(number).choices(range(plan.tenants), k=plan.queries)
    waited, faults = [], 0
    for tenant, vector in zip(map(_canary, tenants), questions, strict=True):
        began = time.perf_counter()
        ids = store.ask(tenant, vector, TOP_K)
        waited.append((time.perf_counter() - began) * 1000)
        faults += expected - sum(found.startswith(f"{tenant}/") for found in ids)
    return Round(median(waited), faults)


def _figures(plan: Plan, rounds: Mapping[str, Sequence[Round]], peers: dict[str, Peer], leaks: int) -> Figures:
    p50 = {name: [one.p50_ms for one in found] for name, found in rounds.items()}
    faults = {name: sum(one.faults for one in found) for name, found in rounds.items()}
    figures: Figures = {
        "outside_model_p50_ms": median(p50["shared"]),
        "single_tenant_p50_ms": median(p50["single"]),
        "p50_ratio_vs_single_tenant": pairwise(p50["shared"], p50["single"]),
        "handle_p50_ms": median(p50["handle"]),
    }
    for name in [name for name in peers if name in rounds]:
        figures[f"ratio_vs_{name}"] = pairwise(p50[name], p50["handle"])
        peers[name] |= {"p50_ms": median(p50[name]), "faults": faults[name]}
    figures["leaks"] = leaks + faults["shared"] + faults["single"] + faults["handle"]
    return {
        **figures,
        "tenants": plan.tenants,
        "chunks": plan.chunks_each * plan.tenants,
        "queries": plan.queries * plan.repeats,
    }
