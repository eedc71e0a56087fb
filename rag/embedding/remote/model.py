"""What is known of a model that runs elsewhere: its name, its tokenizer, and what the operator says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Encoding, Tokenizer

from rag.embedding.remote.tokenizer import TokenizerFile
from rag.embedding.runtime import Fingerprint


@dataclass(frozen=True, slots=True)
class RemoteSpec:
    """Nothing of it is asked of the provider: one that is down must not change what a vector's space is called."""

    name: str  #: as sent
    dimensions: int
    max_tokens: int
    revision: str  #: changed by the operator when the provider changes the weights
    query_prompt: str = ""
    document_prompt: str = ""


class RemoteModel:
    def __init__(self, spec: RemoteSpec, tokenizer: TokenizerFile) -> None:
        self.name, self.tokenizer_json, self._max_tokens = spec.name, tokenizer.json, spec.max_tokens
        self.fingerprint = Fingerprint(
            weights_sha256=f"not known: {spec.name!r} of a provider, revision {spec.revision!r}",
            pooling=f"the provider's, tokenizer {tokenizer.identity}",
            normalised=True,
            max_tokens=spec.max_tokens,
            precision="fp32",
            dimensions=spec.dimensions,
            query_prompt=spec.query_prompt,
            document_prompt=spec.document_prompt,
        )
        self.where = f"at a provider, tokens counted by {tokenizer.identity}"
        self._tokenizer = Tokenizer.from_str(tokenizer.json)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(spec.max_tokens)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(encoding.ids) for encoding in self._tokenizer.encode_batch(list(texts))]

    def readable(self, text: str) -> str:
        """The part of the text that the model can read: most providers refuse a longer one."""
        encoding = self._tokenizer.encode(text)
        while encoding.overflowing:
            # The start of a word can have more tokens than the word, so a cut is checked, and one character less is tried.
            text = text[: min(_end(encoding), len(text) - 1)]
            encoding = self._tokenizer.encode(text)
        return text


def _end(encoding: Encoding) -> int:
    return max((end for _, end in encoding.offsets), default=0)
