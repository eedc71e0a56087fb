"""OpenVINO on the CPU: the same weights, fused, and in bf16 where the CPU has it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino

from config.errors import SetupError
from rag.embedding.local.encoding import Encoder
from rag.embedding.local.prepared import PROBE_FILE, Manifest
from rag.embedding.local.probes import PROBES, cosines, trusted
from rag.embedding.runtime import CPU_BATCH_TOKENS, Fingerprint, Matrix, unit_rows

log = logging.getLogger(__name__)

PRECISIONS = {"bf16": "bf16", "fp32": "f32"}
CHECKED = 12  # probes that are run at each start: they also prepare the kernels of the usual shapes


class OpenVinoRuntime:
    """`ir`: the folder that `prepared.prepare` made of the model in `folder`."""

    batch_tokens = CPU_BATCH_TOKENS

    def __init__(self, ir: Path, folder: Path, fingerprint: Fingerprint, *, name: str, reason: str) -> None:
        self.name, self.fingerprint = name, fingerprint
        manifest = Manifest.read(ir)
        self._encoder = Encoder(folder, manifest.max_tokens)
        self.tokenizer_json = self._encoder.tokenizer_json
        compiled = openvino.Core().compile_model(
            str(ir / "model.xml"),
            "CPU",
            # One stream: a batch fills the cores by itself (two streams were no faster), and a question has all of them.
            {"INFERENCE_PRECISION_HINT": PRECISIONS[fingerprint.precision], "NUM_STREAMS": "1"},
        )
        self._request = compiled.create_infer_request()
        self.where = f"OpenVINO on cpu, {fingerprint.precision}, cosine {manifest.cosine_mean:.6f} to fp32 ({reason})"
        self._check(ir)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._encoder.count(texts)

    def embed(self, texts: Sequence[str]) -> Matrix:
        return unit_rows(self._embed(texts), self.fingerprint.dimensions)

    def _embed(self, texts: Sequence[str]) -> Matrix:
        ids, mask = self._encoder.padded(texts)
        self._request.infer({"input_ids": ids, "attention_mask": mask}, share_inputs=True)
        return np.array(self._request.get_output_tensor(0).data, np.float32)

    def _check(self, ir: Path) -> None:
        """What was trusted when it was made may have been damaged since, or meet another CPU."""
        expected = np.load(ir / PROBE_FILE, allow_pickle=False)[:CHECKED]
        ours = np.concatenate([self._embed([text]) for text in PROBES[:2]] + [self._embed(PROBES[2:CHECKED])])
        if not trusted(found := cosines(unit_rows(ours), expected)):
            raise SetupError(
                f"The prepared model in {ir} gives other vectors than the original (cosine {found.mean():.5f}); remove the "
                "folder, and it is made anew, or set CARREL_EMBEDDING_RUNTIME=sentence-transformers."
            )
