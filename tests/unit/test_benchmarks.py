"""The benchmarks' own arithmetic, their seeded texts, what they refuse to measure, and one small run of each."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks import __main__, fairness, ingest, process_memory, tenants
from benchmarks.corpus import Text, Writer, embedded_texts, spread
from benchmarks.embed import _gemm_figures, mean_overlap
from benchmarks.embedders import open_embedders
from benchmarks.harness import BenchmarkError, alternate, in_parallel, median, pairwise, percentile
from benchmarks.model_math import Encoder
from benchmarks.peers import Shelf, open_peers, unit_vectors
from benchmarks.process_memory import anonymous_mb, find_process, pss_by_process, pss_mb, tree
from benchmarks.report import Report, machine
from benchmarks.workload import Asked, ask, bring, dimensions_of, model_folder
from carrel_client import Carrel
from rag.embedding.hashing import HashRuntime
from rag.splitting.chunking import Chunker

HASH = HashRuntime().tokenizer_json
PEER_PACKAGES = ("lancedb", "chromadb", "fastembed")


@pytest.fixture
def no_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if none of the other products were installed."""
    for package in PEER_PACKAGES:
        monkeypatch.setitem(sys.modules, package, None)


def test_sides_take_turns_and_the_first_one_changes() -> None:
    order: list[str] = []

    def side(name: str) -> Any:
        return lambda number: order.append(name) or number

    assert alternate({"a": side("a"), "b": side("b")}, 3) == {"a": [0, 1, 2], "b": [0, 1, 2]}
    assert "".join(order) == "abbaab"


def test_figures_are_computed_as_they_are_named() -> None:
    assert median([9, 1, 2]) == 2
    assert median([1, 2, 3, 100]) == 2.5
    assert percentile([4, 1, 3, 2, 5], 50) == 3
    assert percentile(list(range(101)), 99) == 99
    # Each round was twice as fast as its partner, although the rounds differ tenfold.
    assert pairwise([2, 20, 200], [1, 10, 100]) == 2
    assert pairwise([2, 20, 9], [1, 10, 100]) == 2


def test_parallel_work_keeps_its_order_and_its_failures() -> None:
    assert in_parallel(lambda number: number * number, range(20), threads=4, label="") == [n * n for n in range(20)]
    with pytest.raises(ZeroDivisionError):
        in_parallel(lambda number: 1 // number, [1, 0], threads=2, label="")


@pytest.fixture(params=["hash", "model"])
def tokenizer(request: pytest.FixtureRequest, tokenizer_json: str) -> str:
    return HASH if request.param == "hash" else tokenizer_json


def test_a_document_has_as_many_chunks_as_were_asked_for(tokenizer: str) -> None:
    document = Writer(7, tokenizer).document("one", 60)
    pieces = list(Chunker(tokenizer).split(document.text, title=document.title))
    assert len(pieces) == 60
    assert [piece.text for piece in pieces] == document.text.split("\n\n")
    assert len({piece.text for piece in pieces}) == 60
    assert embedded_texts([document], tokenizer) == [piece.embedded for piece in pieces]


def test_chunks_are_as_full_as_real_ones(tokenizer_json: str) -> None:
    counted = Chunker(tokenizer_json)._tokenizer
    lengths = [
        len(counted.encode(text).ids)
        for text in embedded_texts([Writer(7, tokenizer_json).document("one", 60)], tokenizer_json)
    ]
    assert 130 < np.mean(lengths) < 180
    assert np.std(lengths) > 10
    assert max(lengths) <= 256


def test_every_chunk_carries_the_mark(tokenizer: str) -> None:
    document = Writer(7, tokenizer).document("one", 30, mark="canary000001")
    assert all(text.count("canary000001") == 1 for text in embedded_texts([document], tokenizer))


def test_texts_follow_from_the_seed_alone() -> None:
    assert Writer(1, HASH).document("x", 3) == Writer(1, HASH).document("x", 3)
    assert Writer(1, HASH).document("x", 3) != Writer(2, HASH).document("x", 3)
    text = Writer(1, HASH).document("x", 3).text
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "fe9619f4ea9bdb48"  # figures of two versions are of the same texts


def test_questions_are_not_repeated() -> None:
    assert len(set(Writer(3, HASH).questions(2_000))) == 2_000


def test_chunks_are_spread_over_documents() -> None:
    assert spread(250, 100) == [100, 100, 50]
    assert spread(200, 100) == [100, 100]
    assert spread(7, 100) == [7]


@pytest.fixture
def child() -> Iterator[int]:
    """A process with a child of its own that holds 50 MB."""
    inner = "held = bytearray(b'x' * 50_000_000); print('up', flush=True); input()"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}, 'holder'])"
    with subprocess.Popen([sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process.pid
        process.communicate("\n", timeout=20)


def test_memory_is_that_of_the_whole_tree(child: int) -> None:
    assert len(tree(child)) == 2
    holder = find_process(child, "holder")
    assert holder != child
    assert 50 < anonymous_mb(holder) < 80
    assert pss_mb(child) > pss_mb(holder) > 50
    with pytest.raises(BenchmarkError, match="'engine'"):
        find_process(child, "engine")


def test_memory_of_a_service_is_told_by_process(child: int) -> None:
    found = pss_by_process(child)
    assert found["other"] == pytest.approx(pss_mb(child), rel=0.1)
    assert found.keys() == {"supervisor", "engine", "worker", "api", "parsers", "other"}


def test_memory_is_counted_in_millions_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "7").mkdir()
    rollup = "00400000-7fff [rollup]\nRss:  9000 kB\nPss:  3000 kB\nPss_Anon:  1 kB\nAnonymous:  2000 kB\n"
    (tmp_path / "7" / "smaps_rollup").write_text(rollup)
    monkeypatch.setattr(process_memory, "PROC", tmp_path)
    assert pss_mb(7) == pytest.approx(3.072)
    assert anonymous_mb(7) == pytest.approx(2.048)


def test_a_process_that_has_ended_holds_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert pss_mb(process.pid) == 0


def test_report_names_benchmark_figures_peers_and_machine() -> None:
    report = Report("embed", {"chunks_per_s": 71.25}, {"fastembed": {"skipped": "not installed"}, "other": {"p50_ms": 1.5}})
    written = json.loads(json.dumps(report.as_dict()))
    assert written.keys() == {"benchmark", "figures", "peers", "machine"}
    assert written["figures"] == {"chunks_per_s": 71.25}
    assert written["machine"].keys() == machine().keys() >= {"cpu", "cores", "memory_gb", "load_at_start", "python"}
    table = report.table()
    assert "71.25" in table
    assert "fastembed: skipped not installed" in table
    assert "other: p50_ms 1.5" in table


def test_arithmetic_of_an_encoder() -> None:
    # By hand, one layer, width 2, inner 3: a token has 2·(4·4 + 2·6) = 56, two tokens also 4·4·2 = 32 for attention.
    assert Encoder(1, 2, 3).flop([2]) == 2 * 56 + 32
    assert Encoder(6, 2, 3).flop([2, 1]) == 6 * (2 * 56 + 32 + 56 + 8)
    assert Encoder.of(model_folder()) == Encoder(6, 384, 1536)


def test_gemm_fraction_is_paired_by_round_and_absent_without_a_peak() -> None:
    rates = {"carrel": [10.0, 20.0, 30.0], "gemm": [4e9, 8e9, 12e9]}
    assert _gemm_figures(rates, 2e8) == {"gemm_fraction": pytest.approx(0.5), "gemm_peak_gflops": 8.0}
    assert _gemm_figures({"carrel": [10.0]}, 2e8) == {}


def test_overlap_is_the_share_of_common_neighbours() -> None:
    scores = np.array([[4, 3, 2, 1], [1, 2, 3, 4]], np.float32)
    assert mean_overlap(scores, scores, 2) == 1.0
    assert mean_overlap(scores, scores[:, ::-1], 2) == 0.0
    assert mean_overlap(scores, np.array([[4, 1, 3, 2], [1, 2, 3, 4]], np.float32), 2) == 0.75


def test_missing_products_are_named_and_skipped(no_peers: None, tmp_path: Path) -> None:
    found, peers = open_peers(tmp_path)
    assert found == []
    assert peers.keys() == {"lancedb", "chroma"}
    assert all("carrel-server[bench]" in str(peer["skipped"]) for peer in peers.values())


@pytest.mark.full
def test_fastembed_is_skipped_where_it_is_missing(no_peers: None, tmp_path: Path) -> None:
    embedders, peers = open_embedders(model_folder(), tmp_path)
    assert [embedder.name for embedder in embedders] == ["sentence_transformers"]
    assert "fastembed" in str(peers["fastembed"]["skipped"])


def test_peers_get_unit_vectors_from_the_seed() -> None:
    vectors = unit_vectors(50, dimensions_of("hash"), 1)
    assert vectors.shape == (50, 256)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(vectors, unit_vectors(50, 256, 1))
    assert not np.array_equal(vectors, unit_vectors(50, 256, 2))


def answering(timings: dict[str, float], *, cached: int = 0, passages: int = 1) -> Carrel:
    result = SimpleNamespace(
        timings_ms=timings, usage={"cached_tokens": cached}, passages=[SimpleNamespace(text="x")] * passages
    )
    return cast(Carrel, SimpleNamespace(query=lambda _question, top_k: result))


def test_the_models_time_is_what_the_service_says() -> None:
    assert ask(answering({"embedding": 9.0, "model": 7.0}), "?").model_ms == 7.0
    assert ask(answering({"embedding": 9.0}), "?").model_ms == 9.0
    assert Asked(12.0, 7.0, ()).outside_ms == 5.0


def test_an_answer_that_cost_nothing_is_not_measured() -> None:
    with pytest.raises(BenchmarkError):
        ask(answering({"embedding": 1.0}, cached=4), "?")
    with pytest.raises(BenchmarkError):
        ask(answering({"embedding": 1.0}, passages=0), "?")


def test_a_document_that_was_there_is_not_measured() -> None:
    submitted = SimpleNamespace(wait=lambda: None)
    client = cast(Carrel, SimpleNamespace(documents=SimpleNamespace(create=lambda **_: submitted)))
    with pytest.raises(BenchmarkError, match="there already"):
        bring(client, Text("loans", "", ""))


def test_both_sides_of_ingest_must_have_the_same_chunks() -> None:
    submitted = SimpleNamespace(wait=lambda: SimpleNamespace(chunks_total=2))
    client = cast(Carrel, SimpleNamespace(documents=SimpleNamespace(create=lambda **_: submitted)))
    document = Text("loans", "", "")
    assert ingest.through_service(client, ingest.Load([document], ["a", "b"])) > 0
    with pytest.raises(BenchmarkError, match="2 chunks"):
        ingest.through_service(client, ingest.Load([document], ["a"]))


def test_a_foreign_passage_is_a_leak() -> None:
    room = tenants.Room("", "", "canary000001", Shelf("", ""), "")
    texts = ("canary000001 is mine", "canary000002 is not", "neither is this")
    asked = Asked(1, 1, cast(Any, tuple(SimpleNamespace(text=text) for text in texts)))
    assert room.leaks(asked) == 2


PAGE = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def test_every_benchmark_is_described() -> None:
    commands = [command.name or command.callback.__name__ for command in __main__.app.registered_commands if command.callback]
    assert len(commands) >= 6
    assert [name for name in commands if f"## {name}\n" not in PAGE or f"benchmarks {name}" not in PAGE] == []


def test_a_runtime_without_a_model_is_not_compared() -> None:
    outcome = CliRunner().invoke(__main__.app, ["embed", "--runtime", "hash"])
    assert outcome.exit_code == 2
    assert "could be compared" in outcome.output


def run(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """The command itself, to its JSON; every figure must be explained in the page."""
    target = tmp_path / "out.json"
    outcome = CliRunner().invoke(__main__.app, [*arguments, "--json", str(target)], catch_exceptions=False)
    assert outcome.exit_code == 0
    written: dict[str, Any] = json.loads(target.read_text())
    assert written["benchmark"] == arguments[0]
    assert outcome.stdout.startswith(f"{arguments[0]} on ")
    assert [name for name in written["figures"] if f"`{name}`" not in PAGE] == []
    return written


@pytest.mark.full
def test_query_measures_a_small_service(tmp_path: Path) -> None:
    figures = run(tmp_path, "query", "--chunks", "50", "--queries", "20", "--runtime", "hash")["figures"]
    assert figures["chunks"] == 50
    assert 0 < figures["outside_model_p50_ms"] < figures["p50_ms"] <= figures["p99_ms"]
    assert figures["outside_model_p50_ms"] <= figures["outside_model_p99_ms"]
    assert 5 < figures["engine_anon_mb"] < 1_000


@pytest.mark.full
def test_sessions_measures_appends_and_a_sweep(tmp_path: Path) -> None:
    given = ("--appends", "20", "--sessions", "40", "--queries", "40", "--runtime", "hash")
    figures = run(tmp_path, "sessions", *given)["figures"]
    assert figures["sessions"] == 40
    assert 0 < figures["bare_insert_p50_ms"] < figures["append_p50_ms"] <= figures["append_p99_ms"]
    assert abs(figures["handles_growth"]) < 20
    assert 100 < figures["pss_mb_tenth"] < 5_000
    assert figures["pss_mb_all"] - figures["pss_mb_tenth"] == figures["pss_growth_mb"]
    assert figures["queries_in_sweep"] >= 40
    assert figures["query_p95_ratio_in_sweep"] > 0
    assert 0 < figures["sweep_s"] + figures["erase_s"] < 60


@pytest.mark.full
def test_startup_measures_a_start(tmp_path: Path) -> None:
    figures = run(tmp_path, "startup", "--repeats", "1", "--runtime", "hash")["figures"]
    assert 0 < figures["ready_s"] < figures["first_vector_s"]
    assert 0 < figures["cold_vector_s"] < figures["ready_s"]
    processes = ("supervisor", "engine", "worker", "parsers", "api")
    assert sum(figures[f"{name}_pss_mb"] for name in processes) == pytest.approx(figures["service_pss_mb"])
    assert all(figures[f"{name}_pss_mb"] > 5 for name in processes)
    assert figures["service_pss_mb"] > 100


@pytest.mark.full
def test_tenants_compares_and_finds_no_leak(no_peers: None, tmp_path: Path) -> None:
    written = run(tmp_path, "tenants", "--tenants", "3", "--chunks", "60", "--queries", "20", "--repeats", "1")
    figures = written["figures"]
    assert (figures["leaks"], figures["tenants"], figures["chunks"]) == (0, 3, 60)
    assert 0.1 < figures["p50_ratio_vs_single_tenant"] < 10
    assert 0 < figures["handle_p50_ms"] < figures["outside_model_p50_ms"]
    assert not figures.keys() & {"ratio_vs_lancedb", "ratio_vs_chroma"}
    assert written["peers"]["chroma"].keys() == {"skipped"}


@pytest.mark.full
def test_ingest_compares_with_bare_embedding(tmp_path: Path) -> None:
    sizes = ("--documents", "2", "--chunks-per-document", "5", "--small-documents", "3", "--repeats", "1")
    figures = run(tmp_path, "ingest", *sizes, "--runtime", "hash")["figures"]
    expected = figures["chunks_per_s"] / figures["bare_chunks_per_s"]
    assert figures["fraction_of_bare_embedding"] == pytest.approx(expected)
    assert figures["small_chunks_per_s"] > 0


def test_a_fair_share_is_reckoned_from_the_time_alone() -> None:
    plan = fairness.Plan(500, 5, 20, 40, 2, "hash", 1)
    rounds = [
        {"b": fairness.Waited(1, 3), "c": fairness.Waited(1, 6)},
        {"b": fairness.Waited(2, 6), "c": fairness.Waited(1, 3)},
    ]
    found = fairness.figures(plan, rounds, {"on": [9, 90], "off": [10, 100]})
    assert (found["small_tenants_over_fair_share"], found["alone_over_ungated"]) == (1.5, 0.9)
    assert (found["small_tenant_alone_s"], found["small_tenant_flooded_s"]) == (1, 4.5)


@pytest.mark.full
def test_fairness_measures_a_flood(tmp_path: Path) -> None:
    sizes = ("--flood", "150", "--small", "2", "--chunks-per-document", "5", "--alone", "10", "--repeats", "1")
    figures = run(tmp_path, "fairness", *sizes, "--runtime", "hash")["figures"]
    assert 0 < figures["small_tenants_over_fair_share"] < 5
    assert figures["alone_over_ungated"] == pytest.approx(figures["alone_chunks_per_s"] / figures["ungated_chunks_per_s"])


@pytest.mark.full
def test_embed_compares_with_fp32(no_peers: None, tmp_path: Path) -> None:
    written = run(tmp_path, "embed", "--chunks", "30", "--repeats", "1")
    figures = written["figures"]
    assert figures["cosine_min"] > 0.999
    assert 0.9 < figures["overlap10"] <= 1
    assert 0 < figures["gemm_fraction"] < 1
    assert figures["ratio_vs_sentence_transformers"] > 0
    assert "ratio_vs_fastembed" not in figures
