"""The profiles as the loaded model allows them: what is left open is derived from its window, and what exceeds it refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from config.errors import InvalidInput, SetupError
from config.profiles import PRIORITIES, Profile, Rewrite
from rag.embedding.runtime import EmbeddingModel
from rag.ranking import Fusion

#: Beyond this a chunk holds so much that its one vector says little of any part; models of longer windows get no longer
#: chunks by themselves.
DERIVED_WINDOW = 512
#: Of what chunk and context have together, 254 tokens with a window of 256 and 2 special ones: 40 are the context's, and 2
#: stay free, for tokenizers that read two texts otherwise when they are joined.
CONTEXT_SHARE, SHARED, SPARE = 40, 254, 2


@dataclass(frozen=True, slots=True)
class Chunking:
    """How a text is cut, in tokens of the embedding model. Kept with each version, which is always cut by what it was
    brought under."""

    chunk_tokens: int
    context_tokens: int
    overlap_tokens: int
    splitter: str
    parent_tokens: int = 0  #: of the passages that are returned for chunks; 0: chunks are


@dataclass(frozen=True, slots=True)
class NamedProfile:
    name: str
    chunking: Chunking
    fusion: Fusion
    priority: str
    rerank: bool
    rewrite: Rewrite

    @property
    def rank(self) -> int:
        """Of its jobs in the queue: smaller goes first."""
        return PRIORITIES[self.priority]


class Profiles:
    """Raises SetupError for a profile that the model's window has no room for."""

    def __init__(self, profiles: Mapping[str, Profile], model: EmbeddingModel) -> None:
        window, count = model.fingerprint.max_tokens, model.count_tokens
        # What the model reads besides: special tokens, its prompt, and the empty line between context and chunk.
        (nothing, prompt, line) = count(["", model.fingerprint.document_prompt, "\n\n"])
        self._room = room = window - prompt - (line - nothing)
        self._named = {
            name: NamedProfile(
                name,
                _chunking(name, profile, window, room),
                _fusion(profile),
                profile.priority,
                profile.rerank,
                profile.rewrite,
            )
            for name, profile in sorted(profiles.items())
        }

    def get(self, name: str, *, field: str = "profile") -> NamedProfile:
        """Raise InvalidInput if there is none; `field` is what named it."""
        if name not in self._named:
            raise InvalidInput(f"There is no profile {name!r}; there are {', '.join(self._named)}.", field=field)
        return self._named[name]

    def sized(self, name: str, chunk_tokens: int, overlap_tokens: int) -> Chunking:
        """The profile's way to cut at other sizes, as far as the model's window has room for them."""
        base = self.get(name).chunking
        chunk = min(chunk_tokens, self._room - base.context_tokens)
        parent = base.parent_tokens if base.parent_tokens >= chunk else 0
        return replace(base, chunk_tokens=chunk, overlap_tokens=min(overlap_tokens, chunk // 2), parent_tokens=parent)

    def all(self) -> list[NamedProfile]:
        return [*self._named.values()]


def _fusion(profile: Profile) -> Fusion:
    weights = profile.dense_weight, profile.unspaced_dense_weight
    return Fusion(profile.fusion, *weights, profile.candidates, profile.support)


def _chunking(name: str, profile: Profile, window: int, room: int) -> Chunking:
    """`room`: tokens of the window that chunk and context have together."""
    derived = min(room, room - window + DERIVED_WINDOW)
    chunk, context = profile.chunk_tokens, profile.context_tokens
    if context is None:
        context = max(0, min(CONTEXT_SHARE * derived // SHARED, room - (chunk or 0)))
    if chunk is None:
        chunk = max(derived, context + SPARE + 1) - context - SPARE
    overlap = profile.overlap_tokens
    of_window = f"the model reads {window} tokens, of which {room} are left for chunk and context together"
    for field, value, limit, why in (
        ("chunk_tokens", chunk, room - context, f"beside a context of {context}: {of_window}"),
        ("overlap_tokens", overlap, chunk // 2, f"half of the chunk's {chunk}: beyond it, most of each chunk is repetition"),
    ):
        if value > limit:
            raise SetupError(
                f"profile {name!r}: `{field}` is {value}, and at most {max(0, limit)} {why}. Set it in CARREL_PROFILES_FILE."
            )
    if 0 < profile.parent_tokens < chunk:
        raise SetupError(
            f"profile {name!r}: `parent_tokens` is {profile.parent_tokens}, and at least the {chunk} of `chunk_tokens` are "
            "needed, or 0 to return chunks. Set it in CARREL_PROFILES_FILE."
        )
    return Chunking(chunk, context, overlap, profile.splitter, profile.parent_tokens)
