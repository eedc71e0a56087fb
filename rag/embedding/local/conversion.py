"""Makes an OpenVINO model of a sentence-transformers model, and measures it against fp32. A process of its own, because it
needs torch, which the service does not: `python -m rag.embedding.local.conversion MODEL_FOLDER TARGET_FOLDER PRECISION`.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from sentence_transformers import SentenceTransformer

from rag.embedding.local.encoding import Encoder
from rag.embedding.local.openvino_runtime import PRECISIONS
from rag.embedding.local.prepared import PROBE_FILE, Manifest
from rag.embedding.local.probes import PROBES, cosines
from rag.embedding.runtime import Matrix, unit_rows


class SentenceEmbedding(torch.nn.Module):  # type: ignore[misc]
    """All modules of the model, from ids to the pooled vector."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._model = model

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        return self._model({"input_ids": input_ids, "attention_mask": attention_mask})["sentence_embedding"]


def convert(folder: Path, target: Path, precision: str) -> Manifest:
    model = SentenceTransformer(
        str(folder),
        device="cpu",
        local_files_only=True,
        trust_remote_code=False,
        model_kwargs={"dtype": torch.float32, "use_safetensors": True},
    )
    model.eval()
    expected = unit_rows(np.asarray(model.encode(list(PROBES), show_progress_bar=False), np.float32))
    graph = _graph(model)
    openvino.save_model(graph, target / "model.xml", compress_to_fp16=False)
    np.save(target / PROBE_FILE, expected)
    max_tokens = int(model.max_seq_length)
    compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": PRECISIONS[precision]})
    ids, mask = Encoder(folder, max_tokens).padded(PROBES)
    ours: Matrix = unit_rows(np.array(compiled({"input_ids": ids, "attention_mask": mask})[0], np.float32))
    found = cosines(ours, expected)
    return Manifest(
        openvino=openvino.__version__.split("-")[0],
        precision=precision,
        max_tokens=max_tokens,
        dimensions=int(expected.shape[1]),
        cosine_mean=float(found.mean()),
        cosine_min=float(found.min()),
    )


def _graph(model: Any) -> Any:
    example = torch.ones(2, 16, dtype=torch.long)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # of checks of shapes, which are free here
        return openvino.convert_model(
            SentenceEmbedding(model),
            example_input={"input_ids": example, "attention_mask": example},
            input=[("input_ids", [-1, -1]), ("attention_mask", [-1, -1])],
        )


if __name__ == "__main__":
    made = convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    made.write(Path(sys.argv[2]))
