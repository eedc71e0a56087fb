"""sentence-transformers on CPU or CUDA. torch takes seconds to import, and is only once a model is loaded here."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from config.errors import SetupError, Unavailable
from rag.embedding.local.encoding import Encoder
from rag.embedding.local.models import adapted, pooling, weights_sha256
from rag.embedding.local.wanted import Choice, Wanted
from rag.embedding.runtime import CPU_BATCH_TOKENS, Fingerprint, Matrix, unit_rows

log = logging.getLogger(__name__)

# torch keeps compiled kernels for every shape it met: with free lengths a worker grew by 3 MB a second to 2 GB.
LENGTH_STEP = 16
GPU_SHARE = 0.5  # of the free memory: another process may want some of it too
GPU_BATCH_TOKENS = 65_536  # more does not make a GPU faster


class SentenceTransformerRuntime:
    def __init__(self, folder: Path, choice: Choice, wanted: Wanted) -> None:
        try:
            import torch
            from sentence_transformers import SentenceTransformer
            from transformers.utils import logging as transformers_logging
        except ImportError as error:
            raise SetupError(
                "Local embedding needs torch and sentence-transformers: pip install -c constraints.txt 'carrel-server[local]'."
            ) from error
        transformers_logging.disable_progress_bar()
        self.name = wanted.model
        self._torch = torch
        device = _pick_device(torch) if choice.device == "auto" else choice.device
        precision = _pick_precision(torch, device, bf16=choice.cpu_bf16) if choice.precision == "auto" else choice.precision
        self._model = SentenceTransformer(
            str(folder),
            device=device,
            local_files_only=True,
            trust_remote_code=False,
            # bf16: 1.7 times as fast as fp32 where the CPU has it, cosine 0.99995 to it
            model_kwargs={"dtype": torch.bfloat16 if precision == "bf16" else torch.float32, "use_safetensors": True},
        )
        self._model[0].processing_kwargs = {"text": {"pad_to_multiple_of": LENGTH_STEP}}
        self._model.eval()
        max_tokens, width = int(self._model.max_seq_length), int(self._model.get_embedding_dimension())
        self._encoder = Encoder(folder, max_tokens)
        self.tokenizer_json = self._encoder.tokenizer_json
        whole = Fingerprint(weights_sha256(folder), pooling(folder), True, max_tokens, precision, width)
        self.fingerprint = adapted(whole, folder, wanted)
        self.where = f"sentence-transformers on {device}, {precision} ({choice.reason})"
        self.batch_tokens = _gpu_budget(torch, folder, device, max_tokens) if device.startswith("cuda") else CPU_BATCH_TOKENS
        self.embed(["warm up"])

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._encoder.count(texts)

    def embed(self, texts: Sequence[str]) -> Matrix:
        try:
            vectors = self._model.encode(
                list(texts), batch_size=max(1, len(texts)), convert_to_numpy=True, show_progress_bar=False
            )
        except self._torch.OutOfMemoryError as error:
            return self._halved(texts, error)
        return unit_rows(np.asarray(vectors, np.float32), self.fingerprint.dimensions)

    def _halved(self, texts: Sequence[str], error: Exception) -> Matrix:
        """Another process may have taken the memory that was free when the budget was made."""
        self._torch.cuda.empty_cache()
        if len(texts) == 1:
            raise Unavailable("The GPU has no memory left for one text; it is tried again later.") from error
        log.warning("the GPU ran out of memory; the batch is halved", extra={"texts": len(texts)})
        middle = len(texts) // 2
        return np.concatenate([self.embed(texts[:middle]), self.embed(texts[middle:])])


def _pick_device(torch: Any) -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _pick_precision(torch: Any, device: str, *, bf16: bool) -> str:
    has = torch.cuda.is_bf16_supported() if device.startswith("cuda") else bf16
    return "bf16" if has else "fp32"


def _gpu_budget(torch: Any, folder: Path, device: str, max_tokens: int) -> int:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    free, _total = torch.cuda.mem_get_info(device)
    return gpu_batch_tokens(
        free, width=config.hidden_size, inner=config.intermediate_size, heads=config.num_attention_heads, max_tokens=max_tokens
    )


def gpu_batch_tokens(free_bytes: int, *, width: int, inner: int, heads: int, max_tokens: int) -> int:
    """Padded tokens of one call that fit into a share of the free memory.

    A token in flight holds about eight vectors of the model's width (states, queries, keys, values, residuals), two of its
    inner width, and its row of attention scores for each head, all in 4 bytes at most. At least one text of full length.
    """
    each = 4 * (8 * width + 2 * inner + heads * max_tokens)
    return max(max_tokens, min(GPU_BATCH_TOKENS, int(free_bytes * GPU_SHARE) // each))
