"""Which runtime a machine's model gets, and why: decided from facts, without importing torch."""

from __future__ import annotations

import importlib.util
import logging
import platform
from dataclasses import dataclass, replace
from pathlib import Path

from config.errors import SetupError
from rag.embedding.local.models import adapted, resolve_model
from rag.embedding.local.wanted import Choice, Wanted
from rag.embedding.runtime import EmbeddingRuntime

log = logging.getLogger(__name__)

OPENVINO, TORCH = "openvino", "sentence-transformers"
X86 = {"x86_64", "amd64"}
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


@dataclass(frozen=True, slots=True)
class Machine:
    architecture: str
    bf16: bool  #: the CPU multiplies bf16 itself: emulated, it is many times slower than fp32
    gpu: bool  #: an NVIDIA driver is loaded
    openvino: bool  #: the package is installed

    @classmethod
    def here(cls) -> Machine:
        return cls(
            architecture=platform.machine().lower(),
            bf16=not _cpu_flags().isdisjoint(BF16_FLAGS),
            gpu=Path("/proc/driver/nvidia/version").exists(),
            openvino=importlib.util.find_spec("openvino") is not None,
        )


def choose(wanted: Wanted, machine: Machine) -> Choice:
    on_cpu = "bf16" if machine.bf16 else "fp32"

    def openvino(reason: str) -> Choice:
        return Choice(OPENVINO, "cpu", on_cpu if wanted.precision == "auto" else wanted.precision, machine.bf16, reason)

    def torch(reason: str) -> Choice:
        return Choice(TORCH, wanted.device, wanted.precision, machine.bf16, reason)

    if wanted.runtime != "auto":
        return (openvino if wanted.runtime == OPENVINO else torch)("CARREL_EMBEDDING_RUNTIME names it")
    if wanted.device not in ("auto", "cpu"):
        return torch(f"CARREL_EMBEDDING_DEVICE is {wanted.device}")
    if machine.gpu and wanted.device == "auto":
        return torch("there is an NVIDIA GPU")
    if machine.architecture not in X86:
        return torch(f"OpenVINO is chosen on x86, and this is {machine.architecture}")
    if not machine.openvino:
        return torch("the package openvino is not installed")
    return openvino("an x86 CPU, and no GPU")


def open_runtime(wanted: Wanted, models: Path, machine: Machine | None = None) -> EmbeddingRuntime:
    """Load the model as `choose` says. `models`: where prepared ones are kept.

    Where OpenVINO was not asked for by name and fails, torch takes over, and says so.
    """
    folder = resolve_model(wanted.model, allow_download=wanted.allow_download)
    choice = choose(wanted, machine or Machine.here())
    if choice.runtime == OPENVINO:
        try:
            return _openvino(folder, models, choice, wanted)
        except SetupError as error:
            if wanted.runtime == OPENVINO:
                raise
            log.warning("OpenVINO is not used", extra={"reason": error.detail})
            choice = replace(choice, runtime=TORCH, reason="OpenVINO failed its checks")
    return _torch(folder, choice, wanted)


def _openvino(folder: Path, models: Path, choice: Choice, wanted: Wanted) -> EmbeddingRuntime:
    from rag.embedding.local.openvino_runtime import OpenVinoRuntime
    from rag.embedding.local.prepared import prepare

    ir, whole = prepare(folder, models, precision=choice.precision)
    return OpenVinoRuntime(ir, folder, adapted(whole, folder, wanted), name=wanted.model, reason=choice.reason)


def _torch(folder: Path, choice: Choice, wanted: Wanted) -> EmbeddingRuntime:
    from rag.embedding.local.torch_runtime import SentenceTransformerRuntime

    return SentenceTransformerRuntime(folder, choice, wanted)


def _cpu_flags() -> set[str]:
    try:
        return set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return set()
