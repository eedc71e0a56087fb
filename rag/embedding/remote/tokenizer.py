"""The tokenizer of a model that runs elsewhere: a file of the operator's, or cl100k_base, which OpenAI's models read with.

Chunking takes tokenizers as Hugging Face's JSON, so the bundled ranks of cl100k_base are written as such: each token's
merge is the last step by which the ranks below its own join its bytes.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from config.errors import SetupError
from rag.tokens import ranks

#: Of tiktoken, as Oniguruma needs it: `$` would also match before a line's end, `{1,3}+` would repeat, `(?i:s)` is spelt out.
_PATTERN = (
    r"'(?:[sdmtSDMTſ]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++\z|\s*[\r\n]|\s+(?!\S)|\s"
)
_CACHED = "cl100k_base-1.json"  # the number changes when what is written here does


@dataclass(frozen=True, slots=True)
class TokenizerFile:
    identity: str  #: part of the model's fingerprint
    json: str


def load_tokenizer(path: Path | None, *, cache_folder: Path) -> TokenizerFile:
    """`path`: a tokenizer.json or its folder; without one, cl100k_base, made in `cache_folder` the first time (0.9 s)."""
    if path is None:
        return TokenizerFile("cl100k_base", _cached(cache_folder / _CACHED))
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        raw = file.read_bytes()
        Tokenizer.from_buffer(raw)
    except OSError as error:
        raise SetupError(f"CARREL_EMBEDDING_TOKENIZER: {file} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise SetupError(f"CARREL_EMBEDDING_TOKENIZER: {file} is not a tokenizer.json of Hugging Face's format.") from error
    return TokenizerFile(f"sha256 {hashlib.sha256(raw).hexdigest()}", raw.decode())


def _cached(file: Path) -> str:
    if file.is_file():
        return file.read_text(encoding="utf-8")
    made = cl100k_json()
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=file.parent, delete=False) as part:
        part.write(made)
        part.flush()
        os.fsync(part.fileno())
    os.replace(part.name, file)  # two processes that start at once write the same
    return made


def cl100k_json() -> str:
    """cl100k_base in Hugging Face's format: the same tokens for every text, special ones being ordinary text."""
    ranked = ranks("cl100k_base")
    letters = _letters()
    spelt = {token: "".join(map(letters.__getitem__, token)) for token in ranked}
    pairs = (_last_merge(token, ranked) for token in ranked if len(token) > 1)
    merges = [(spelt[left], spelt[right]) for left, right in pairs]
    tokenizer = Tokenizer(models.BPE({spelt[token]: rank for token, rank in ranked.items()}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return str(tokenizer.to_str())


def _last_merge(token: bytes, ranked: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that become this one, by joining what has the least rank until two are left."""
    parts = [token[place : place + 1] for place in range(len(token))]
    never = len(ranked)
    while len(parts) > 2:
        joined = [ranked.get(left + right, never) for left, right in itertools.pairwise(parts)]
        place = joined.index(min(joined))
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts[0], parts[1]


def _letters() -> dict[int, str]:
    """GPT-2's letter for each byte: printable Latin-1 characters are their own, the others lie from U+0100 on."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in own]
    return {byte: chr(byte) for byte in own} | {byte: chr(256 + place) for place, byte in enumerate(others)}
