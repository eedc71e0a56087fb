"""Profiles are read, merged and fitted to the model, or refused by name, field and limit; their chunks keep every promise."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from config.errors import InvalidInput, SetupError
from config.profiles import BUILT_IN, MAX_PROFILES, Profile, Splitter, load_profiles
from rag.embedding.hashing import HashRuntime
from rag.embedding.runtime import Fingerprint
from rag.profiles import Chunking, Profiles
from rag.splitting.chunkers import KEPT, Chunkers
from rag.splitting.chunking import MARKDOWN, MAX_CHARS, Chunker, ChunkIdentity, Piece, Sizes
from rag.splitting.syntax import outline
from tests.support import examples
from tests.unit.test_chunking import texts

SPECIAL = 2  # tokens that the bundled model reads besides a text


@dataclass(frozen=True)
class Model:
    """As much of an embedding model as profiles ask for."""

    tokenizer: Tokenizer
    window: int = 256
    prompt: str = ""
    name = "model"
    tokenizer_json = ""

    @property
    def fingerprint(self) -> Fingerprint:
        return replace(HashRuntime.fingerprint, max_tokens=self.window, document_prompt=self.prompt)

    def count_tokens(self, texts: list[str]) -> list[int]:
        return [len(encoding.ids) for encoding in self.tokenizer.encode_batch(texts)]


@pytest.fixture(scope="module")
def chunkers(tokenizer_json: str) -> Chunkers:
    return Chunkers(tokenizer_json)


def _sizes(model: Model, profile: Profile) -> tuple[int, int, int]:
    chunking = Profiles({"tried": profile}, model).get("tried").chunking
    return chunking.chunk_tokens, chunking.context_tokens, chunking.overlap_tokens


# --- the file


def _file(tmp_path: Path, content: str) -> Path:
    file = tmp_path / "profiles.toml"
    file.write_text(content, encoding="utf-8")
    return file


def test_without_a_file_there_are_the_built_in_profiles() -> None:
    assert load_profiles(None) == BUILT_IN
    assert set(BUILT_IN) == {"standard", "precise", "economy"}


def test_a_file_adds_profiles_and_changes_fields_of_others(tmp_path: Path) -> None:
    content = '[contracts]\nchunk_tokens = 64\npriority = "high"\n\n[economy]\nrerank = true\n'
    found = load_profiles(_file(tmp_path, content))
    assert found["contracts"] == Profile(chunk_tokens=64, priority="high")
    assert found["economy"] == Profile(priority="low", rerank=True, rewrite=False)
    assert (found["standard"], found["precise"]) == (BUILT_IN["standard"], BUILT_IN["precise"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[tiny]\nchunk_tokens = 4\n", ("'tiny'", "`chunk_tokens`", "16")),
        ("[wide]\nparent_tokens = 8193\n", ("'wide'", "`parent_tokens`", "8192")),
        ("[wide]\noverlap_tokens = -1\n", ("'wide'", "`overlap_tokens`", "0")),
        ('[odd]\nsplitter = "pages"\n', ("'odd'", "`splitter`", "'plain'")),
        ('[odd]\nrerank = "yes"\n', ("'odd'", "`rerank`", "boolean")),
        ("[odd]\nmodel = 'other'\n", ("'odd'", "`model`", "not permitted")),
        ("[economy]\npriority = 1\n", ("'economy'", "`priority`", "'high'")),
        ("['Two words']\n", ("'Two words'", "1 to 40")),
        ("chunk_tokens = 64\n", ("'chunk_tokens'", "outside of any profile")),
        ("[broken\n", ("cannot be read",)),
        ("".join(f"[p{number}]\n" for number in range(MAX_PROFILES)), (f"at most {MAX_PROFILES}",)),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_with_its_reason(tmp_path: Path, content: str, said: tuple[str, ...]) -> None:
    with pytest.raises(SetupError) as refused:
        load_profiles(_file(tmp_path, content))
    assert all(word in refused.value.detail for word in ("profiles.toml", *said)), refused.value.detail


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "profiles.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SetupError, match="CARREL_PROFILES_FILE"):
        load_profiles(file)


# --- the model's window


@pytest.mark.parametrize(("window", "chunk", "context"), [(128, 105, 19), (256, 212, 40), (512, 428, 80), (8192, 428, 80)])
def test_standard_sizes_follow_the_models_window(tokenizer: Tokenizer, window: int, chunk: int, context: int) -> None:
    assert _sizes(Model(tokenizer, window), BUILT_IN["standard"]) == (chunk, context, 0)


def test_standard_is_what_chunks_were_before_there_were_profiles(tokenizer: Tokenizer) -> None:
    former = Sizes()
    assert _sizes(Model(tokenizer), BUILT_IN["standard"]) == (former.text_tokens, former.context_tokens, former.overlap_tokens)
    runtime = HashRuntime()
    assert Profiles(BUILT_IN, runtime).get("standard").chunking == Chunking(212, 40, 0, "auto")


def test_a_prompt_takes_its_tokens_of_the_window(tokenizer: Tokenizer) -> None:
    prompt = "search document: "
    taken = len(tokenizer.encode(prompt, add_special_tokens=False).ids)
    sizes = {text: _sizes(Model(tokenizer, prompt=text), Profile()) for text in ("", prompt)}
    assert sum(sizes[""]) - sum(sizes[prompt]) == taken > 0


def test_a_given_size_leaves_the_rest_to_the_other(tokenizer: Tokenizer) -> None:
    assert _sizes(Model(tokenizer), Profile(chunk_tokens=230)) == (230, 24, 0)
    assert _sizes(Model(tokenizer), Profile(chunk_tokens=254)) == (254, 0, 0)
    assert _sizes(Model(tokenizer), Profile(context_tokens=10)) == (242, 10, 0)


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        (Profile(chunk_tokens=255), ("`chunk_tokens` is 255", "at most 254", "256 tokens")),
        (Profile(chunk_tokens=200, context_tokens=60), ("`chunk_tokens` is 200", "at most 194", "context of 60")),
        (Profile(context_tokens=300), ("`chunk_tokens`", "at most 0")),
        (Profile(chunk_tokens=64, overlap_tokens=33), ("`overlap_tokens` is 33", "at most 32")),
        (Profile(overlap_tokens=107), ("`overlap_tokens` is 107", "at most 106")),
        (Profile(chunk_tokens=64, parent_tokens=63), ("`parent_tokens` is 63", "at least the 64", "`chunk_tokens`")),
    ],
)
def test_what_the_model_has_no_room_for_is_refused(tokenizer: Tokenizer, profile: Profile, said: tuple[str, ...]) -> None:
    with pytest.raises(SetupError) as refused:
        Profiles({**BUILT_IN, "tried": profile}, Model(tokenizer))
    assert all(word in refused.value.detail for word in ("'tried'", *said)), refused.value.detail


def test_a_profile_that_is_none_is_refused_with_those_that_are(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidInput, match="economy, precise, standard") as refused:
        Profiles(BUILT_IN, Model(tokenizer)).get("none")
    assert refused.value.field == "profile"


# --- chunks

chunkings = st.builds(
    lambda chunk, context, overlap, splitter, parent: Chunking(chunk, context, int(overlap * chunk / 2), splitter, parent),
    st.integers(16, 214),
    st.integers(0, 40),
    st.one_of(st.just(0.0), st.floats(0, 1)),
    st.sampled_from(get_args(Splitter)),
    st.sampled_from([0, 400]),
)


@given(
    text=texts,
    chunking=chunkings,
    markdown=st.booleans(),
    title=st.text(max_size=300),
    language=st.sampled_from(["", "python", "c++", "cobol"]),
)
@example(text="q" * 4099 + " q" * 205, chunking=Chunking(32, 0, 16, "auto"), markdown=False, title="title", language="")
@example(text="0:" * 11 + "¡" + "x" * 3979 + ":", chunking=Chunking(23, 0, 11, "auto"), markdown=False, title="", language="")
@example(text="# a\n\n" + "one two. " * 4000, chunking=Chunking(24, 8, 12, "markdown"), markdown=False, title="", language="")
@settings(max_examples=examples(150), deadline=None)
def test_chunks_of_any_sizes_are_exact_ordered_complete_and_within_their_caps(
    chunkers: Chunkers, tokenizer: Tokenizer, text: str, chunking: Chunking, markdown: bool, title: str, language: str
) -> None:
    pieces = list(chunkers.split(chunking, text, markdown=markdown, title=title, outline=outline(text, language)))
    assert all(text[piece.start : piece.end] == piece.text for piece in pieces)
    _moves_on(pieces)
    assert all(piece.text for piece in pieces)
    assert not _outside(text, pieces).strip()
    for piece in pieces:
        assert len(piece.text) <= MAX_CHARS
        assert _tokens(tokenizer, piece.text) <= chunking.chunk_tokens
        assert _tokens(tokenizer, piece.context) <= chunking.context_tokens
        assert _tokens(tokenizer, piece.embedded) <= chunking.chunk_tokens + chunking.context_tokens
    for before, after in itertools.pairwise(pieces):
        assert _tokens(tokenizer, text[after.start : before.end]) <= chunking.overlap_tokens


def _moves_on(pieces: list[Piece]) -> None:
    """Each begins and ends behind the one before it."""
    for before, after in itertools.pairwise(pieces):
        assert before.start < after.start
        assert before.end < after.end


def _outside(text: str, pieces: list[Piece]) -> str:
    """What no chunk holds."""
    kept, end = [], 0
    for piece in pieces:
        kept.append(text[end : max(end, piece.start)])
        end = piece.end
    return "".join(kept) + text[end:]


def _tokens(tokenizer: Tokenizer, text: str) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False).ids)


def test_an_overlap_is_there(chunkers: Chunkers) -> None:
    text = " ".join(f"Sentence number {number} says something." for number in range(300))
    pieces = list(chunkers.split(Chunking(96, 40, 24, "auto"), text, markdown=False, title=""))
    shared = [before.end - after.start for before, after in itertools.pairwise(pieces)]
    assert sum(length > 0 for length in shared) >= 0.9 * len(shared) > 9


MARKED = "# One\n\nunder one\n\n" + "word " * 300 + "\n\n## Two\n\nunder two"


@pytest.mark.parametrize(
    ("splitter", "markdown", "along"),
    [("auto", True, True), ("auto", False, False), ("plain", True, False), ("markdown", False, True)],
)
def test_the_splitter_is_the_profiles_or_the_formats(chunkers: Chunkers, splitter: str, markdown: bool, along: bool) -> None:
    pieces = list(chunkers.split(Chunking(64, 40, 16, splitter), MARKED, markdown=markdown, title=""))
    assert (pieces[-1].headings == ("One", "Two")) is along
    assert any(piece.headings for piece in pieces) is along


def test_the_standard_profile_makes_the_chunks_that_were_made_without_profiles(
    chunkers: Chunkers, tokenizer: Tokenizer, tokenizer_json: str
) -> None:
    standard = Profiles(BUILT_IN, Model(tokenizer)).get("standard").chunking
    now = list(chunkers.split(standard, MARKED * 5, markdown=True, title="title"))
    former = list(Chunker(tokenizer_json).split(MARKED * 5, MARKDOWN, title="title"))
    assert now == former
    ids = ChunkIdentity("tenant", "collection", "document", "payload").ids(now)
    # As this PIPELINE_VERSION makes them: other ids would have every stored chunk embedded again.
    assert ids[:2] == ["15719729-1e12-53fb-add5-5d2cc3389d35", "35a1ca9d-94a2-5891-9364-107d9f905b91"]
    assert (len(ids), ids[-1]) == (16, "f6f87af8-f2d4-50a7-a4a9-83811ec15b61")


def test_few_chunkers_are_kept(tokenizer_json: str) -> None:
    chunkers = Chunkers(tokenizer_json)
    for size in range(16, 16 + KEPT + 3):
        assert [*chunkers.split(Chunking(size, 0, 0, "plain"), "text", markdown=False, title="")]
    assert chunkers._of.cache_info().currsize == KEPT
