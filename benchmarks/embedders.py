"""Other ways to the same vectors: sentence-transformers as it comes, and fastembed. Imported only when they are asked for."""

from __future__ import annotations

import importlib
import json
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tokenizers import Tokenizer

from benchmarks.report import Peer
from rag.embedding.runtime import Matrix

FASTEMBED_NAME = "sentence-transformers/all-MiniLM-L6-v2"  # the only one of its models that this folder's weights are
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OPSET = 17


class Embedder(Protocol):
    name: str

    def embed(self, texts: Sequence[str]) -> Matrix: ...


class SentenceTransformersDefault:
    """fp32 and batches of 32: what `SentenceTransformer(name).encode(texts)` does."""

    name = "sentence_transformers"

    def __init__(self, folder: Path) -> None:
        self._model = importlib.import_module("sentence_transformers").SentenceTransformer(str(folder), local_files_only=True)

    def embed(self, texts: Sequence[str]) -> Matrix:
        return np.asarray(self._model.encode(list(texts), batch_size=32, show_progress_bar=False), np.float32)


class FastembedDefault:
    """`TextEmbedding(name).embed(texts)`, with the same weights: its own download cannot be had offline."""

    name = "fastembed"

    def __init__(self, folder: Path, work: Path) -> None:
        fastembed = importlib.import_module("fastembed")
        export_onnx(folder, work)
        self._model = fastembed.TextEmbedding(FASTEMBED_NAME, specific_model_path=str(work))

    def embed(self, texts: Sequence[str]) -> Matrix:
        return np.stack(list(self._model.embed(list(texts)))).astype(np.float32)


def open_embedders(folder: Path, work: Path) -> tuple[list[Embedder], dict[str, Peer]]:
    """Those that can be had, and for each its version or why it is skipped."""
    embedders: list[Embedder] = [SentenceTransformersDefault(folder)]
    peers: dict[str, Peer] = {
        "sentence_transformers": {"version": version("sentence-transformers"), "how": "fp32, batch_size=32"}
    }
    try:
        embedders.append(FastembedDefault(folder, work))
        peers["fastembed"] = {"version": version("fastembed"), "how": "default, ONNX export of the same weights in fp32"}
    except ImportError as error:
        peers["fastembed"] = {"skipped": f"{error}; pip install -c constraints.txt 'carrel-server[bench]'"}
    return embedders, peers


def export_onnx(folder: Path, target: Path) -> None:
    """The weights as fastembed reads them: token states out, pooling is its own. Raises ImportError without `onnx`."""
    importlib.import_module("onnx")
    torch = importlib.import_module("torch")
    # eager: the fused attention of the default has no ONNX form in this exporter; onnxruntime fuses the graph itself.
    model = importlib.import_module("transformers").AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    example = torch.ones(2, 16, dtype=torch.long)
    with _quiet():
        torch.onnx.export(
            _token_states(torch, model),
            (example, example, torch.zeros_like(example)),
            str(target / "model.onnx"),
            input_names=list(INPUTS),
            output_names=["last_hidden_state"],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in (*INPUTS, "last_hidden_state")},
            dynamo=False,
            opset_version=OPSET,
        )
    _copy_tokenizer(folder, target)


def _token_states(torch: Any, model: Any) -> Any:
    class TokenStates(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            answer = self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
            return answer.last_hidden_state

    return TokenStates()


def _copy_tokenizer(folder: Path, target: Path) -> None:
    """With the same limit as the other sides, and without the file's fixed padding to 128, which would only slow it."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(target / "tokenizer.json"))
    for name in ("config.json", "special_tokens_map.json"):
        shutil.copy(folder / name, target / name)
    limit = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"model_max_length": limit}
    (target / "tokenizer_config.json").write_text(json.dumps(settings))


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of what does not concern a measurement."""
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(StringIO()))
        stack.enter_context(redirect_stderr(StringIO()))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield
