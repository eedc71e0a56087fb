"""Settings of where vectors lie and how they are kept."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, SecretStr


class StoreSettings(BaseModel):
    vector_backend: Literal["engine", "qdrant"] = Field(
        "engine", description="`engine` is the built-in process; `qdrant` a Qdrant server at CARREL_QDRANT_URL."
    )
    qdrant_url: str | None = Field(None, description="Base URL of a Qdrant server.")
    qdrant_api_key: SecretStr | None = Field(None, description="Key of that Qdrant server.")
    qdrant_shard_keys: bool = Field(
        False,
        description="Whether collections may get a shard of their own on that server. It must run in distributed mode, and "
        "spaces that were made without shard keys stay without.",
    )
    dedicated_points: int = Field(
        20_000,
        ge=0,
        description="Points from which on a collection gets a shard of its own, and below half of which it is put back; "
        "0: only where the operator says so.",
    )
    graph_points: int = Field(
        10_000, ge=1_000, description="Points from which on a shard of one collection gets a graph (HNSW)."
    )
    engine_idle_seconds: float = Field(
        30.0, gt=0, description="Pause in the writing after which the engine builds graphs and reclaims space."
    )
    dedicated_quantization: Literal["off", "int8"] = Field(
        "off",
        description="`int8`: vectors of collections with a shard of their own are compared as bytes first, "
        "and the best twice as many as asked for again as they are.",
    )
    shared_quantization: Literal["off", "int8"] = Field("off", description="The same for the shard that collections share.")
