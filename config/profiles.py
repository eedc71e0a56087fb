"""Named ways to process a collection's documents: those that are built in, and the operator's own from a file.

Says nothing of a model: which sizes fit the one that is loaded is `rag.profiles`' to find out.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from config.errors import SetupError

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
MAX_PROFILES = 100
STANDARD = "standard"  # of collections that name no other
#: As the job queue sorts: a smaller number is taken first.
PRIORITIES: Mapping[str, int] = MappingProxyType({"high": 1, "normal": 2, "low": 3})


Splitter: TypeAlias = Literal["auto", "plain", "markdown", "code", "sentence", "fixed"]
#: How a language model words a question anew before it is searched for.
Rewrite: TypeAlias = Literal["none", "multi_query", "hyde", "decompose"]


def _mode(value: object) -> object:
    """True is the way that costs least."""
    return ("multi_query" if value else "none") if isinstance(value, bool) else value


class Profile(BaseModel):
    """Sizes are tokens of the embedding model. One that is None follows from the model's window."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    chunk_tokens: int | None = Field(None, ge=16, le=8192)
    context_tokens: int | None = Field(None, ge=0, le=512)  #: title and headings, embedded before the chunk
    overlap_tokens: int = Field(0, ge=0, le=4096)  #: at most, of a chunk with the one before it
    parent_tokens: int = Field(0, ge=0, le=8192)  #: of the passage that a chunk stands for; 0: the chunk is the passage
    splitter: Splitter = "auto"  #: auto: as the document's format says
    priority: Literal["high", "normal", "low"] = "normal"
    fusion: Literal["score", "rrf"] = "score"  #: how the dense and the lexical leg become one ranking
    dense_weight: float = Field(0.7, ge=0, le=1)  #: of 1; the rest is the lexical leg's
    unspaced_dense_weight: float = Field(0.5, ge=0, le=1)  #: the same, of questions in scripts without blanks between words
    candidates: int = Field(50, ge=10, le=1000)  #: of each leg
    support: float = Field(0.2, ge=0, le=1)  #: of a candidate's score, that its nearest other candidates make up; 0: none
    rerank: bool = True  #: whether its passages are reranked, where a reranker is configured
    #: Of questions that do not say, where a language model is configured. None by default: it takes a hundred times as long.
    rewrite: Annotated[Rewrite, BeforeValidator(_mode)] = "none"


BUILT_IN: Mapping[str, Profile] = MappingProxyType(
    {
        STANDARD: Profile(),
        # A passage of two or three sentences answers a narrow question without the rest of its page. What a cut tears apart
        # is whole in the next chunk, for a third more tokens: each chunk of 96 brings 72 new ones.
        "precise": Profile(chunk_tokens=96, overlap_tokens=24),
        # For archives: the same chunks, so changing to it and back embeds nothing anew, but whoever waits goes first.
        "economy": Profile(priority="low", rerank=False),
    }
)


def load_profiles(file: Path | None) -> Mapping[str, Profile]:
    """The built-in profiles with the file's over them, field by field. Raises SetupError naming profile, field and limit."""
    if file is None:
        return BUILT_IN
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # of TOML and of UTF-8 alike
        raise SetupError(f"CARREL_PROFILES_FILE: {file} cannot be read: {error}") from error
    profiles = {**BUILT_IN, **{name: _profile(file, name, fields) for name, fields in tables.items()}}
    if len(profiles) > MAX_PROFILES:
        raise SetupError(f"{file}: there are {len(profiles)} profiles, and at most {MAX_PROFILES} can be.")
    return MappingProxyType(profiles)


def _profile(file: Path, name: str, fields: Any) -> Profile:
    if not NAME.fullmatch(name):
        raise SetupError(f"{file}: profile {name!r}: a name is 1 to 40 of a-z, 0-9, `_` and `-`.")
    if not isinstance(fields, dict):
        raise SetupError(f"{file}: {name!r} stands outside of any profile: write [{STANDARD}] or another name above it.")
    try:
        return Profile.model_validate(BUILT_IN.get(name, Profile()).model_dump() | fields)
    except ValidationError as error:
        wrong = "; ".join(f"`{item['loc'][0]}`: {item['msg']}" for item in error.errors())
        raise SetupError(f"{file}: profile {name!r}: {wrong}") from None
