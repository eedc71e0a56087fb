"""A cross-encoder in this process, through sentence-transformers. torch is loaded with it, and only if one is configured."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from config.errors import SetupError
from rag.rerank.base import RerankFailed

BATCH = 8  # pairs between two looks at the clock


class LocalReranker:
    """One thread runs the model. A question whose turn does not come in time is not charged."""

    def __init__(self, folder: Path, *, name: str, device: str) -> None:
        try:
            import torch
            from sentence_transformers import CrossEncoder
            from transformers.utils import logging as transformers_logging
        except ImportError as error:
            raise SetupError(
                "Local reranking needs torch and sentence-transformers: pip install -c constraints.txt 'carrel-server[local]'."
            ) from error
        transformers_logging.disable_progress_bar()
        self.name = name
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self._model: Any = CrossEncoder(
            str(folder), device=chosen, local_files_only=True, trust_remote_code=False, model_kwargs={"use_safetensors": True}
        )
        if self._model.config.num_labels != 1:
            raise SetupError(f"CARREL_RERANK_MODEL: {name!r} gives {self._model.config.num_labels} values for a pair, not one.")
        self._sigmoid = torch.nn.Sigmoid()
        self._tokenizer = _tokenizer(folder, self._model.max_seq_length)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rerank")

    def count_tokens(self, query: str, texts: Sequence[str]) -> int:
        return sum(len(encoding.ids) for encoding in self._tokenizer.encode_batch([(query, text) for text in texts]))

    def scores(self, query: str, texts: Sequence[str], *, deadline_s: float) -> list[float]:
        until, began = time.monotonic() + deadline_s, threading.Event()
        try:
            running = self._thread.submit(self._run, query, texts, until, began)
            return running.result(deadline_s)
        except TimeoutError as error:
            running.cancel()
            raise RerankFailed("not done in time", began=began.is_set()) from error
        except (RuntimeError, CancelledError) as error:  # `close` came between, or torch ran out of memory
            raise RerankFailed(str(error), began=began.is_set()) from error

    def _run(self, query: str, texts: Sequence[str], until: float, began: threading.Event) -> list[float]:
        found: list[float] = []
        for at in range(0, len(texts), BATCH):
            if time.monotonic() > until:
                raise TimeoutError
            began.set()
            pairs = [(query, text) for text in texts[at : at + BATCH]]
            part = self._model.predict(pairs, batch_size=BATCH, activation_fn=self._sigmoid, show_progress_bar=False)
            found += np.asarray(part, np.float64).tolist()
        return found

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)


def _tokenizer(folder: Path, max_length: int | None) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise SetupError(f"CARREL_RERANK_MODEL: {folder} has no tokenizer.json.")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length or 512)
    return tokenizer
