"""The written cl100k_base has the same tokens as tiktoken's for every text; what is cut is what the model reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from config.errors import SetupError
from rag.embedding.hashing import HashRuntime
from rag.embedding.remote import tokenizer as module
from rag.embedding.remote.model import RemoteModel, RemoteSpec
from rag.embedding.remote.tokenizer import TokenizerFile, cl100k_json, load_tokenizer
from rag.splitting.chunking import MARKDOWN, Chunker
from rag.tokens import encoding
from tests.support import examples

#: Characters at which patterns part: contractions, numbers, white space of all kinds, marks, letters that fold.
MIXED = st.text(
    st.sampled_from(
        "abcXYZ sdmtSDMTſ'’lLvVeErRK 0123456789\n\r\t  \x0b\x0c\x1c\x85\u00a0\u2028\u200b.,!?()-—/é\u0301İßΣ日本語🎉"
    )
)


MOST = (1, 12)


@pytest.fixture(scope="module")
def written() -> TokenizerFile:
    return TokenizerFile("cl100k_base", cl100k_json())


@pytest.fixture(scope="module")
def counter(written: TokenizerFile) -> Tokenizer:
    return Tokenizer.from_str(written.json)


@settings(max_examples=examples(1000), deadline=None)
@given(text=st.text() | MIXED)
@example(text="<|endoftext|> is ordinary text")
@example(text="it's 12345 o'clock \n \n")
def test_the_tokens_are_tiktokens(counter: Tokenizer, text: str) -> None:
    ids = counter.encode(text, add_special_tokens=False).ids
    assert ids == encoding("cl100k_base").encode_ordinary(text)
    assert counter.decode(ids) == text


def test_every_token_is_itself(counter: Tokenizer) -> None:
    """Each of the 100,256 is in the vocabulary with its rank, and is made by the merges if it is text that stays whole."""
    assert counter.get_vocab_size() == 100_256
    reference = encoding("cl100k_base")
    texts = []
    for rank in range(0, 100_256, 7):
        raw = reference.decode_single_token_bytes(rank)
        texts.append(raw.decode("utf-8", "ignore"))
    encoded = [encoding.ids for encoding in counter.encode_batch(texts, add_special_tokens=False)]
    assert encoded == [reference.encode_ordinary(text) for text in texts]


@settings(max_examples=examples(200), deadline=None)
@given(text=MIXED | st.text(st.characters(min_codepoint=0x2000, codec="utf-8")), most=st.sampled_from(MOST))
def test_a_long_text_is_cut_to_what_the_model_reads(written_model: dict[int, RemoteModel], text: str, most: int) -> None:
    model = written_model[most]
    kept = model.readable(text)
    assert text.startswith(kept)
    (count,) = model.count_tokens([kept])
    assert len(encoding("cl100k_base").encode_ordinary(kept)) == count <= most
    whole = len(encoding("cl100k_base").encode_ordinary(text))
    assert model.count_tokens([text]) == [min(whole, most)]
    if whole <= most:
        assert kept == text


@pytest.fixture(scope="module")
def written_model(written: TokenizerFile) -> dict[int, RemoteModel]:
    return {most: RemoteModel(RemoteSpec("m", 8, most, "1"), written) for most in MOST}


def test_it_splits_documents(written: TokenizerFile) -> None:
    text = "\n\n".join(f"## Part {number}\n\n" + "A sentence of some words. " * 60 for number in range(5))
    pieces = list(Chunker(written.json).split(text, MARKDOWN, title="Title"))
    assert len(pieces) > 5
    for piece in pieces:
        assert text[piece.start : piece.end] == piece.text
        assert len(encoding("cl100k_base").encode_ordinary(piece.text)) <= 212


def test_it_is_written_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = load_tokenizer(None, cache_folder=tmp_path / "models")
    assert made.identity == "cl100k_base"
    monkeypatch.setattr(module, "cl100k_json", lambda: pytest.fail("it was made again"))
    assert load_tokenizer(None, cache_folder=tmp_path / "models") == made
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["cl100k_base-1.json"]


def test_a_file_of_the_operators_is_named_by_its_digest(tmp_path: Path, tokenizer_of_bytes: str) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(tokenizer_of_bytes)
    by_file, by_folder = (load_tokenizer(path, cache_folder=tmp_path) for path in (file, tmp_path))
    assert by_file == by_folder
    file.write_text(tokenizer_of_bytes + "\n")
    assert load_tokenizer(file, cache_folder=tmp_path).identity != by_file.identity


@pytest.fixture
def tokenizer_of_bytes() -> str:
    return HashRuntime().tokenizer_json


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(SetupError, match="CARREL_EMBEDDING_TOKENIZER"):
            load_tokenizer(path, cache_folder=tmp_path)
