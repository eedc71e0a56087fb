"""Settings of models: what embeds and what reranks, here or at a provider, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, SecretStr

from config.settings_types import MIB, Price, Prices


class ModelSettings(BaseModel):
    embedding_runtime: Literal["auto", "openvino", "sentence-transformers", "remote", "hash"] = Field(
        "auto",
        description="What turns text into vectors. `auto` takes a GPU where there is one, else OpenVINO on x86, else torch; "
        "`carrel doctor` shows which. `remote` is an OpenAI-compatible server at CARREL_EMBEDDING_URL. "
        "`hash` needs no model and finds only equal words: for tests.",
    )
    embedding_model: str = Field(
        "all-MiniLM-L6-v2",
        description="Folder of a model, or its name in the bundled package, the local hub cache, or at the remote server.",
    )
    embedding_device: str = Field("auto", description="Torch device: `auto`, `cpu`, `cuda`, `cuda:1`.")
    embedding_precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto",
        description="`auto` takes bf16 where the hardware has it. Part of a space, as dimensions and prompts are.",
    )
    models_dir: Path | None = Field(
        None, description="Where models prepared for this machine are kept; the default is `models` in the data directory."
    )
    allow_model_download: bool = Field(False, description="Whether a missing model may be fetched from the hub.")
    embedding_dimensions: int | None = Field(
        None,
        ge=8,
        le=16384,
        description="Vectors are cut to these first dimensions, for models trained for that (Matryoshka). "
        "A remote model needs the setting.",
    )
    embedding_query_prompt: str | None = Field(
        None, max_length=2000, description="Put before each question that is embedded; the default is the model's own, if any."
    )
    embedding_document_prompt: str | None = Field(
        None, max_length=2000, description="Put before each chunk that is embedded; the default is the model's own, if any."
    )
    embedding_url: str | None = Field(
        None, description="Base URL of a remote server, such as `https://api.openai.com/v1`; `/embeddings` is added."
    )
    embedding_api_key: SecretStr | None = Field(None, description="Key of the remote server, sent as a bearer token.")
    embedding_max_tokens: int = Field(
        8191, ge=256, le=1_000_000, description="Tokens that the remote model reads of a text; longer ones are cut."
    )
    embedding_tokenizer: Path | None = Field(
        None,
        description="`tokenizer.json` of the remote model, or its folder; without one, tokens are counted as cl100k_base.",
    )
    embedding_revision: str = Field(
        "1",
        max_length=64,
        description="Of the remote model's weights, as you name it. Change it when they changed: a new space begins.",
    )
    embedding_send_dimensions: bool = Field(
        True, description="Whether the remote server is asked for CARREL_EMBEDDING_DIMENSIONS; some refuse the field."
    )
    embedding_rpm: int | None = Field(None, ge=1, description="Requests a minute to the remote server; none is no limit.")
    embedding_tpm: int | None = Field(None, ge=1, description="Tokens a minute to the remote server; none is no limit.")
    embedding_concurrency: int = Field(8, ge=1, le=256, description="Most requests to the remote server at once.")
    embedding_timeout_seconds: float = Field(
        30.0, gt=0, le=600, description="Longest wait for one answer of the remote server."
    )
    embedding_deadline_seconds: float = Field(
        60.0, gt=0, le=3600, description="Longest time that texts wait to be sent to the remote server, or sent again."
    )
    embedding_batch_count: int = Field(32, ge=1, le=2048, description="Texts in one request to the remote server.")
    embedding_batch_tokens: int = Field(16384, ge=256, description="Tokens in one request to the remote server.")
    batch_tokens: int | None = Field(
        None, ge=256, le=65536, description="Padded tokens in one call of the model; the default is the runtime's own."
    )
    embedding_price: Price = Field(
        0, description="Micro-dollars for a million embedding tokens, of models that CARREL_EMBEDDING_PRICES does not name."
    )
    embedding_prices: Prices = Field(
        {}, description="The same for models by name or by the id of their space, as a JSON object; the space goes first."
    )
    cache_max_bytes: int = Field(
        2048 * MIB, ge=MIB, description="Size cap of the embedding cache on disk, shared equally by tenants."
    )
    rerank_model: str | None = Field(
        None,
        description="Cross-encoder that looks at the best candidates again: a folder, a name in the local hub cache, or at "
        "CARREL_RERANK_URL the provider's name for it. None is no reranking.",
    )
    rerank_url: str | None = Field(
        None, description="Whole URL of a rerank endpoint, such as `https://api.jina.ai/v1/rerank`; none runs the model here."
    )
    rerank_api_key: SecretStr | None = Field(None, description="Key of that endpoint, sent as a bearer token.")
    rerank_candidates: int = Field(
        30, ge=2, le=100, description="Passages that the reranker looks at, or `top_k` where that is more."
    )
    rerank_deadline_seconds: float = Field(
        2.0, gt=0, le=60, description="Longest time that a question waits for it; then it is answered without."
    )

    def price_of(self, space: str, model: str) -> int:
        """Micro-dollars for a million tokens of the model: what is charged from now on."""
        return self.embedding_prices.get(space, self.embedding_prices.get(model, self.embedding_price))
