"""Texts as a local model reads them: token ids up to its limit, kept for a while: what was counted is not read again."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

Ids = npt.NDArray[np.int32]

#: Texts whose ids are kept by a digest, however long they are: about 6 MB. A text is counted when its document is read, and
#: embedded soon after; tokenising it twice would cost 0.16 ms a chunk, of about 10 ms that the model takes.
KEPT_TEXTS = 4096
LENGTH_STEP = 8  # tokens that lengths are rounded up to: a runtime prepares kernels for each shape that it meets


class Encoder:
    def __init__(self, folder: Path, max_tokens: int) -> None:
        self.tokenizer_json = (folder / "tokenizer.json").read_text(encoding="utf-8")
        self._tokenizer = Tokenizer.from_str(self.tokenizer_json)
        self._tokenizer.enable_truncation(max_tokens)
        self._tokenizer.no_padding()
        self._pad_id = _pad_id(folder, self._tokenizer)
        self._kept: OrderedDict[bytes, Ids] = OrderedDict()
        self._lock = threading.Lock()

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in self.ids(texts)]

    def ids(self, texts: Sequence[str]) -> list[Ids]:
        """Of each text, at most the model's limit, special tokens included. Any thread may ask."""
        names = [blake2b(text.encode(), digest_size=16).digest() for text in texts]
        with self._lock:
            found = {name: self._kept.get(name) for name in names}
        missing = {name: text for name, text in zip(names, texts, strict=True) if found[name] is None}
        if missing:
            encodings = self._tokenizer.encode_batch_fast([*missing.values()])
            new = {name: np.asarray(encoding.ids, np.int32) for name, encoding in zip(missing, encodings, strict=True)}
            self._keep(new)
            found.update(new)
        return [ids for name in names if (ids := found[name]) is not None]

    def padded(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Ids and attention mask, each of shape (len(texts), the longest rounded up to LENGTH_STEP)."""
        rows = self.ids(texts)
        width = -(-max(map(len, rows)) // LENGTH_STEP) * LENGTH_STEP
        ids = np.full((len(rows), width), self._pad_id, np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
            mask[number, : len(row)] = 1
        return ids, mask

    def _keep(self, new: dict[bytes, Ids]) -> None:
        with self._lock:
            self._kept.update(new)
            while len(self._kept) > KEPT_TEXTS:
                self._kept.popitem(last=False)


def _pad_id(folder: Path, tokenizer: Tokenizer) -> int:
    """A model that counts positions by its padding token needs that very one; to the others any will do."""
    path = folder / "tokenizer_config.json"
    token = json.loads(path.read_text(encoding="utf-8")).get("pad_token") if path.is_file() else None
    name = token.get("content") if isinstance(token, dict) else token
    return (tokenizer.token_to_id(name) if name else None) or 0
