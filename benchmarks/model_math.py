"""How much arithmetic a text costs the model, and how much of it the machine can do: the ceiling of any runtime."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SIZES = (1024, 2048, 4096)  #: of square matrices; the best of them is the peak
MULTIPLICATIONS = 5
WARM_UP_S = 0.3
TORCH_TYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


@dataclass(frozen=True)
class Encoder:
    """A BERT-like encoder's shape."""

    layers: int
    width: int
    inner: int

    @classmethod
    def of(cls, folder: Path) -> Encoder:
        config = json.loads((folder / "config.json").read_text())
        return cls(config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"])

    def flop(self, lengths: Iterable[int]) -> float:
        """Of the matrix products alone, for texts of these many tokens and no padding: 2 for each multiply and add.

        Per token: four projections of width², two of width x inner; per pair of tokens: scores and their weighted sum.
        """
        token = 2 * (4 * self.width**2 + 2 * self.width * self.inner)
        return float(sum(self.layers * (length * token + 4 * length**2 * self.width) for length in lengths))


def gemm_peak(precision: str) -> float:
    """FLOP a second of the best plain matrix product in this precision, one of TORCH_TYPES."""
    torch = importlib.import_module("torch")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, TORCH_TYPES[precision])

    def rate(size: int) -> float:
        left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

        def seconds() -> float:
            began = time.perf_counter()
            for _ in range(MULTIPLICATIONS):
                left @ right
            if device == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter() - began

        warm = time.perf_counter() + WARM_UP_S
        while time.perf_counter() < warm:
            seconds()
        return float(2 * size**3 * MULTIPLICATIONS / min(seconds() for _ in range(3)))

    return max(map(rate, SIZES))
