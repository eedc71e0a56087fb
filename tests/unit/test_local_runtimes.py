"""All runtimes give the real model's vectors, each machine gets the right one, and no prepared model is trusted unproved."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import SetupError, Unavailable
from config.settings import Settings
from rag.embedding.local import prepared
from rag.embedding.local.choice import OPENVINO, TORCH, Machine, choose, open_runtime
from rag.embedding.local.encoding import KEPT_TEXTS, LENGTH_STEP, Encoder
from rag.embedding.local.models import adapted, resolve_model
from rag.embedding.local.openvino_runtime import OpenVinoRuntime
from rag.embedding.local.prepared import PROBE_FILE, Manifest, prepare
from rag.embedding.local.probes import PROBES, cosines, trusted
from rag.embedding.local.torch_runtime import GPU_BATCH_TOKENS, SentenceTransformerRuntime, gpu_batch_tokens
from rag.embedding.local.wanted import Wanted
from rag.embedding.runtime import EmbeddingRuntime, Fingerprint, unit_rows

pytestmark = pytest.mark.xdist_group("torch")  # whose import takes seconds

MODEL = "all-MiniLM-L6-v2"
X86 = Machine(architecture="x86_64", bf16=True, gpu=False, openvino=True)
TEXTS = ["Books may be kept for four weeks.", "How long?", "word " * 400, "図書館", *PROBES[:10]]


@pytest.fixture(scope="module")
def folder() -> Path:
    return resolve_model(MODEL, allow_download=False)


@pytest.fixture(scope="module")
def models() -> Path:
    return Settings().prepared_models


@pytest.fixture(scope="module")
def openvino(models: Path) -> EmbeddingRuntime:
    return open_runtime(Wanted(MODEL, runtime=OPENVINO), models)


@pytest.fixture(scope="module")
def fp32(models: Path) -> EmbeddingRuntime:
    return open_runtime(Wanted(MODEL, runtime=TORCH, precision="fp32"), models)


def test_openvino_gives_the_vectors_of_fp32(openvino: EmbeddingRuntime, fp32: EmbeddingRuntime) -> None:
    ours, theirs = openvino.embed(TEXTS), fp32.embed(TEXTS)
    assert ours.dtype == np.float32
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    assert trusted(cosines(ours, theirs))


def test_a_text_has_the_same_vector_alone_and_in_any_batch(openvino: EmbeddingRuntime) -> None:
    together = openvino.embed(TEXTS)
    assert cosines(together, np.concatenate([openvino.embed([text]) for text in TEXTS])).min() > 0.9995


@pytest.mark.full
def test_all_runtimes_of_one_precision_share_a_space(models: Path, openvino: EmbeddingRuntime) -> None:
    torch = open_runtime(Wanted(MODEL, runtime=TORCH, precision=openvino.fingerprint.precision), models)
    assert torch.fingerprint == openvino.fingerprint
    assert torch.count_tokens(TEXTS) == openvino.count_tokens(TEXTS)


def test_vectors_can_be_cut_to_their_first_dimensions(models: Path, openvino: EmbeddingRuntime) -> None:
    cut = open_runtime(Wanted(MODEL, dimensions=128), models, X86)
    assert cut.embed(TEXTS).shape == (len(TEXTS), 128)
    assert np.allclose(cut.embed(TEXTS), unit_rows(openvino.embed(TEXTS), 128), atol=0.01)
    assert cut.fingerprint.space != openvino.fingerprint.space
    with pytest.raises(SetupError, match="CARREL_EMBEDDING_DIMENSIONS is 385"):
        open_runtime(Wanted(MODEL, dimensions=385), models, X86)


def test_prompts_are_part_of_a_space_and_come_from_the_model_unless_set(tmp_path: Path) -> None:
    whole = Fingerprint("w", "mean", True, 256, "bf16", 384)
    said = {"prompts": {"query": "query: ", "passage": "passage: "}}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(said))
    own = adapted(whole, tmp_path, Wanted(MODEL))
    assert (own.query_prompt, own.document_prompt) == ("query: ", "passage: ")
    none = adapted(whole, tmp_path, Wanted(MODEL, query_prompt="", document_prompt=""))
    assert none == whole
    assert len({one.space for one in (own, none, adapted(whole, tmp_path, Wanted(MODEL, query_prompt="Q ")))}) == 3


def test_what_is_prepared_says_how_near_it_comes_and_is_made_once(
    folder: Path, models: Path, openvino: EmbeddingRuntime
) -> None:
    made, fingerprint = prepare(folder, models, precision=openvino.fingerprint.precision)
    before = (made / "model.bin").stat().st_mtime_ns
    assert prepare(folder, models, precision=openvino.fingerprint.precision) == (made, fingerprint)
    assert (made / "model.bin").stat().st_mtime_ns == before
    manifest = Manifest.read(made)
    assert manifest.trusted
    assert manifest.cosine_min >= 0.999
    assert f"{manifest.cosine_mean:.6f}" in openvino.where
    assert np.load(made / PROBE_FILE).shape == (len(PROBES), manifest.dimensions)


@pytest.mark.full
def test_a_model_too_far_from_its_original_is_not_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def far(_folder: Path, work: Path, precision: str) -> None:
        (work / "model.bin").write_bytes(b"far off")
        Manifest("1", precision, 256, 384, 0.99995, 0.98).write(work)

    monkeypatch.setattr(prepared, "_convert", far)
    with pytest.raises(SetupError, match=r"too far from its original.*0\.98000 at worst"):
        prepare(folder, tmp_path, precision="bf16")
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    with pytest.raises(SetupError):
        open_runtime(Wanted(MODEL, runtime=OPENVINO), tmp_path, X86)
    instead = open_runtime(Wanted(MODEL), tmp_path, X86)  # nobody asked for OpenVINO by name
    assert instead.where.startswith("sentence-transformers on cpu")
    assert "OpenVINO failed" in instead.where
    assert "OpenVINO is not used" in caplog.text


@pytest.mark.full
def test_a_failed_conversion_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(SetupError, match="could not be prepared for OpenVINO"):
        prepare(broken, tmp_path / "models", precision="fp32")
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".lock"]


def test_what_a_killed_preparation_left_is_removed_by_the_next(
    folder: Path, models: Path, openvino: EmbeddingRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, fingerprint = prepare(folder, models, precision=openvino.fingerprint.precision)
    half = tmp_path / ".making-half"
    half.mkdir()
    (half / "model.bin").write_bytes(b"half")

    def copied(_folder: Path, work: Path, _precision: str) -> None:
        for path in ready.iterdir():
            (work / path.name).write_bytes(path.read_bytes() if path.suffix in (".json", ".npy") else b"")

    monkeypatch.setattr(prepared, "_convert", copied)
    made, again = prepare(folder, tmp_path, precision=fingerprint.precision)
    assert again == fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([".lock", made.name])


def test_a_prepared_model_that_was_changed_is_not_used(
    folder: Path, models: Path, openvino: EmbeddingRuntime, tmp_path: Path
) -> None:
    made, fingerprint = prepare(folder, models, precision=openvino.fingerprint.precision)
    changed = shutil.copytree(made, tmp_path / "changed")
    weights = bytearray((changed / "model.bin").read_bytes())
    middle = len(weights) // 4 * 3
    weights[middle : middle + 2_000_000] = bytes(2_000_000)
    (changed / "model.bin").write_bytes(weights)
    with pytest.raises(SetupError, match="other vectors than the original"):
        OpenVinoRuntime(changed, folder, fingerprint, name=MODEL, reason="test")


@pytest.mark.parametrize(
    ("wanted", "machine", "runtime", "device", "precision"),
    [
        ({}, X86, OPENVINO, "cpu", "bf16"),
        ({}, replace(X86, bf16=False), OPENVINO, "cpu", "fp32"),
        ({"precision": "fp32"}, X86, OPENVINO, "cpu", "fp32"),
        ({}, replace(X86, gpu=True), TORCH, "auto", "auto"),
        ({"device": "cpu"}, replace(X86, gpu=True), OPENVINO, "cpu", "bf16"),
        ({"device": "cuda:1"}, X86, TORCH, "cuda:1", "auto"),
        ({}, replace(X86, architecture="aarch64"), TORCH, "auto", "auto"),
        ({}, replace(X86, openvino=False), TORCH, "auto", "auto"),
        ({"runtime": TORCH}, X86, TORCH, "auto", "auto"),
        ({"runtime": OPENVINO}, replace(X86, gpu=True), OPENVINO, "cpu", "bf16"),
    ],
)
def test_the_machine_decides_what_the_settings_leave_open(
    wanted: dict[str, str], machine: Machine, runtime: str, device: str, precision: str
) -> None:
    choice = choose(Wanted(MODEL, **wanted), machine)  # type: ignore[arg-type]
    assert (choice.runtime, choice.device, choice.precision) == (runtime, device, precision)
    assert choice.reason


def test_this_machine_can_be_described() -> None:
    machine = Machine.here()
    assert machine.architecture
    assert machine.openvino


def test_the_service_s_model_needs_no_torch(models: Path, openvino: EmbeddingRuntime) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from rag.embedding.local.choice import open_runtime\nfrom rag.embedding.local.wanted import Wanted\n"
        f"runtime = open_runtime(Wanted({MODEL!r}, runtime='openvino'), Path({str(models)!r}))\n"
        "assert runtime.embed(['one text']).shape == (1, 384)\n"
        "print(sorted({'torch', 'transformers', 'sentence_transformers', 'sklearn'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


class _OutOfMemory(SentenceTransformerRuntime):
    """Whose GPU holds two texts at most."""

    def __init__(self, most: int) -> None:
        import torch  # noqa: PLC0415

        self._torch, self.calls = torch, []  # type: ignore[var-annotated]
        self.fingerprint = Fingerprint("w", "mean", True, 256, "fp32", 2)
        outer = self

        class Model:
            def encode(self, texts: Sequence[str], **_options: object) -> np.ndarray:
                outer.calls.append(len(texts))
                if len(texts) > most:
                    raise torch.OutOfMemoryError("no memory")
                return np.asarray([[len(text), 1.0] for text in texts], np.float32)

        self._model = Model()


def test_a_batch_that_the_gpu_cannot_hold_is_halved() -> None:
    runtime = _OutOfMemory(most=2)
    texts = ["a", "bb", "ccc", "dddd", "eeeee"]
    assert np.allclose(runtime.embed(texts), unit_rows(np.asarray([[len(text), 1.0] for text in texts], np.float32)))
    assert runtime.calls == [5, 2, 3, 1, 2]
    with pytest.raises(Unavailable, match="no memory left for one text"):
        _OutOfMemory(most=0).embed(["a"])


@given(free=st.integers(0, 1 << 40), width=st.integers(64, 8192), heads=st.integers(1, 64), longest=st.integers(16, 8192))
def test_a_gpu_s_batch_fits_its_memory_and_holds_at_least_one_text(free: int, width: int, heads: int, longest: int) -> None:
    tokens = gpu_batch_tokens(free, width=width, inner=4 * width, heads=heads, max_tokens=longest)
    assert longest <= tokens <= max(longest, GPU_BATCH_TOKENS)
    if tokens > longest:
        assert tokens * 4 * (16 * width + heads * longest) <= free


def test_an_encoder_counts_as_it_pads_and_forgets_what_is_old(folder: Path) -> None:
    encoder = Encoder(folder, 256)
    ids, mask = encoder.padded(TEXTS)
    assert ids.shape == mask.shape
    assert ids.shape[1] % LENGTH_STEP == 0
    assert mask.sum(axis=1).tolist() == encoder.count(TEXTS)
    assert max(encoder.count(TEXTS)) == 256
    encoder.count([f"text {number}" for number in range(KEPT_TEXTS + 100)])
    encoder.count(["word " * 20_000])
    assert len(encoder._kept) == KEPT_TEXTS
    assert sum(len(name) + ids.nbytes for name, ids in encoder._kept.items()) < KEPT_TEXTS * 40 + 256 * 4  # and no text
    assert np.array_equal(encoder.padded(TEXTS)[0], ids)
