"""Token counts are those of the published encodings, come from inside the package, and cannot be forged by a text."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from rag import tokens
from rag.tokens import EncodingName, count_tokens, encoding


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base"])
@pytest.mark.parametrize(("text", "count"), [("", 0), ("hello world", 2), ("tiktoken is great!", 6), ("\n\n", 1)])
def test_known_texts_have_their_published_counts(text: str, count: int, name: EncodingName) -> None:
    assert count_tokens(text, name) == count


@pytest.mark.parametrize(
    ("name", "ids"), [("o200k_base", [24912, 2375]), ("cl100k_base", [15339, 1917])], ids=["o200k", "cl100k"]
)
def test_known_texts_have_their_published_ids(name: EncodingName, ids: list[int]) -> None:
    assert encoding(name).encode_ordinary("hello world") == ids


@pytest.mark.parametrize("special", ["<|endoftext|>", "<|fim_prefix|>", "<|endofprompt|>"])
def test_a_special_token_in_a_text_is_ordinary_text(special: str) -> None:
    assert count_tokens(special) > 1
    assert encoding("o200k_base").decode(encoding("o200k_base").encode_ordinary(special)) == special


def test_damaged_ranks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tokens._SHA256, "cl100k_base", "0" * 64)
    with pytest.raises(RuntimeError, match="damaged"):
        encoding.__wrapped__("cl100k_base")


def test_an_encoding_is_built_without_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    assert encoding.__wrapped__("cl100k_base").encode_ordinary("hello world") == [15339, 1917]
