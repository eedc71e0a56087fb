"""A runtime without a model: words hashed into a vector. Finds equal words only; for tests and for starting without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from rag.embedding.runtime import CPU_BATCH_TOKENS, Fingerprint, Matrix

DIMENSIONS = 256


class HashRuntime:
    name, where, batch_tokens = "hash", "hashed words in this process", CPU_BATCH_TOKENS
    fingerprint = Fingerprint("none", "sum of hashed words", True, 256, "fp32", DIMENSIONS)

    def __init__(self) -> None:
        # Byte level: every word has tokens, and none is unknown.
        alphabet = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
        self._words = Tokenizer(models.BPE(alphabet, []))
        self._words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.tokenizer_json = self._words.to_str()

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(encoding.ids) for encoding in self._words.encode_batch(list(texts))]

    def embed(self, texts: Sequence[str]) -> Matrix:
        matrix = np.zeros((len(texts), DIMENSIONS), np.float32)
        for row, text in enumerate(texts):
            for word in text.casefold().split() or [""]:
                digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
                matrix[row, int.from_bytes(digest[:4], "little") % DIMENSIONS] += 1.0 if digest[4] & 1 else -1.0
        norms = np.linalg.norm(matrix, axis=1, keepdims=True)
        matrix[norms[:, 0] == 0, 0] = 1.0  # words that cancel out still need a direction
        return np.asarray(matrix / np.where(norms == 0, 1.0, norms), np.float32)
