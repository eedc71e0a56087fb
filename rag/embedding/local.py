"""sentence-transformers on CPU or CUDA. The only file that imports it or torch, and only when a model is loaded."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from config.errors import SetupError
from rag.embedding.models import weights_sha256
from rag.embedding.runtime import Fingerprint, Matrix

log = logging.getLogger(__name__)

LENGTH_STEP = 16  # tokens that lengths are rounded up to


class SentenceTransformerRuntime:
    def __init__(self, folder: Path, *, device: str, precision: str, name: str) -> None:
        try:
            import torch
            from sentence_transformers import SentenceTransformer
            from transformers.utils import logging as transformers_logging
        except ImportError as error:
            raise SetupError(
                "Local embedding needs torch and sentence-transformers: pip install -c constraints.txt 'carrel-server[local]'."
            ) from error
        transformers_logging.disable_progress_bar()
        self.name = name
        self._device = _pick_device(torch) if device == "auto" else device
        precision = _pick_precision(torch, self._device) if precision == "auto" else precision
        self._model = SentenceTransformer(
            str(folder),
            device=self._device,
            local_files_only=True,
            trust_remote_code=False,
            # bf16: 1.7 times as fast as fp32 where the CPU has it, cosine 0.99995 to it
            model_kwargs={"dtype": torch.bfloat16 if precision == "bf16" else torch.float32, "use_safetensors": True},
        )
        # torch keeps compiled kernels for every shape it met: with free lengths a worker grew by 3 MB a second to 2 GB.
        self._model[0].processing_kwargs = {"text": {"pad_to_multiple_of": LENGTH_STEP}}
        self._model.eval()
        max_tokens = int(self._model.max_seq_length)
        self.tokenizer_json = (folder / "tokenizer.json").read_text(encoding="utf-8")
        self._counter = Tokenizer.from_str(self.tokenizer_json)
        self._counter.enable_truncation(max_tokens)
        self._counter.no_padding()
        width = self._model.get_embedding_dimension()
        self.fingerprint = Fingerprint(weights_sha256(folder), _pooling(folder), True, max_tokens, precision, int(width))
        self.embed(["warm up"])
        log.info("model is loaded", extra={"model": name, "device": self._device, "precision": precision})

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(encoding.ids) for encoding in self._counter.encode_batch(list(texts))]

    def embed(self, texts: Sequence[str]) -> Matrix:
        vectors = self._model.encode(
            list(texts),
            batch_size=max(1, len(texts)),
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        # The model normalises in its own precision: bf16 leaves lengths 0.3 % off, and scores with them.
        matrix = np.asarray(vectors, np.float32)
        return np.asarray(matrix / np.linalg.norm(matrix, axis=1, keepdims=True), np.float32)


def _pick_device(torch: Any) -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _pick_precision(torch: Any, device: str) -> str:
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    # Without the instructions bf16 is emulated, many times slower than fp32.
    return "bf16" if _cpu_has_bf16() else "fp32"


def _cpu_has_bf16() -> bool:
    try:
        features = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return not features.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})


def _pooling(folder: Path) -> str:
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return "unknown"
    modes = json.loads(path.read_text())
    return ",".join(sorted(key for key, value in modes.items() if key.startswith("pooling_mode") and value)) or str(
        modes.get("pooling_mode", "unknown")
    )
