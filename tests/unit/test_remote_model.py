"""A remote model's space is named by what the operator says of it, and by nothing that the provider says or where it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.wiring.embedders import build_embedder
from api.wiring.remote_embedding import build_remote_embedder
from config.errors import SetupError
from config.settings import Settings
from rag.embedding.hashing import HashRuntime
from rag.embedding.remote.embedder import RemoteEmbedder
from rag.embedding.remote.model import RemoteModel, RemoteSpec
from rag.embedding.remote.tokenizer import TokenizerFile

SPEC = RemoteSpec("some-model", 24, 256, "1")
BYTES = TokenizerFile("sha256 of bytes", HashRuntime().tokenizer_json)


def space(spec: RemoteSpec = SPEC, tokenizer: TokenizerFile = BYTES) -> str:
    return RemoteModel(spec, tokenizer).fingerprint.space.id


@pytest.mark.parametrize(
    "change", [{"name": "other-model"}, {"dimensions": 12}, {"max_tokens": 512}, {"revision": "2"}, {"query_prompt": "q: "}]
)
def test_whatever_decides_what_a_vector_means_makes_another_space(change: dict[str, Any]) -> None:
    assert space() == space()
    assert space(replace(SPEC, **change)) != space()
    assert space(tokenizer=replace(BYTES, identity="another")) != space()


def test_names_and_revisions_cannot_be_put_together_to_another_pair() -> None:
    assert space(RemoteSpec("m', revision 'x", 24, 256, "1")) != space(RemoteSpec("m", 24, 256, "x', revision '1"))


def test_counts_end_at_what_the_model_reads() -> None:
    model = RemoteModel(SPEC, BYTES)
    assert model.count_tokens(["", "ab", "é", "x" * 300]) == [0, 2, 2, 256]
    assert model.readable("x" * 300) == "x" * 256
    assert model.readable("short") == "short"


def settings(folder: Path, **changes: Any) -> Settings:
    (folder / "tokenizer.json").write_text(BYTES.json)
    chosen = {
        "data_dir": folder,
        "embedding_runtime": "remote",
        "embedding_url": "http://127.0.0.1:1/v1",
        "embedding_model": "some-model",
        "embedding_dimensions": 24,
        "embedding_tokenizer": folder,
        **changes,
    }
    return Settings(**chosen)


def test_the_address_and_the_key_are_no_part_of_the_space(tmp_path: Path) -> None:
    embedders = [
        build_remote_embedder(settings(tmp_path, **changes))
        for changes in ({}, {"embedding_url": "https://elsewhere.example/v1/"}, {"embedding_api_key": "key"})
    ]
    assert len({embedder.model.fingerprint.space for embedder in embedders}) == 1
    assert embedders[0].model.name == "some-model"
    for embedder in embedders:
        embedder.close()


def test_the_setting_chooses_it(tmp_path: Path) -> None:
    embedder = build_embedder(settings(tmp_path))
    assert isinstance(embedder, RemoteEmbedder)
    assert embedder.counters.requests == 0
    embedder.close()


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"embedding_dimensions": None}, "CARREL_EMBEDDING_DIMENSIONS"),
        ({"embedding_url": None}, "CARREL_EMBEDDING_URL"),
        ({"embedding_url": "ftp://127.0.0.1/v1"}, "CARREL_EMBEDDING_URL"),
        ({"embedding_url": "api.openai.com/v1"}, "CARREL_EMBEDDING_URL"),
        ({"embedding_url": "https://[::1/v1"}, "CARREL_EMBEDDING_URL"),
        ({"embedding_url": "https://host:port/v1"}, "CARREL_EMBEDDING_URL"),
        ({"embedding_url": "https://user:hidden@host/v1"}, "CARREL_EMBEDDING_API_KEY"),
        ({"embedding_url": "https://host/v1?key=hidden"}, "CARREL_EMBEDDING_API_KEY"),
        ({"embedding_api_key": "hidden\u00e9"}, "CARREL_EMBEDDING_API_KEY"),
        ({"embedding_api_key": "hidden\nX-Header: x"}, "CARREL_EMBEDDING_API_KEY"),
        ({"embedding_deadline_seconds": 30, "hold_lease_seconds": 30}, "CARREL_HOLD_LEASE_SECONDS"),
        ({"embedding_tokenizer": "/missing"}, "CARREL_EMBEDDING_TOKENIZER"),
    ],
)
def test_what_is_missing_or_senseless_is_named_and_not_shown(tmp_path: Path, change: dict[str, Any], advice: str) -> None:
    with pytest.raises(SetupError, match=advice) as raised:
        build_remote_embedder(settings(tmp_path, **change))
    assert "hidden" not in str(raised.value)
