"""The only reader of the environment. Everything else receives this frozen object."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from config.money import MAX_PRICE

MIB = 1024 * 1024
MAX_TOKENS = 10**12  # of a month's budget: 400,000 a second, and at the highest price what a database column holds
Price = Annotated[int, Field(ge=0, le=MAX_PRICE)]


def _from_json(value: object) -> object:
    return json.loads(value) if isinstance(value, str) else value


class _Prices(dict[str, int]):
    """Never changed once it is read, so settings that are equal hash alike."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))


#: Read here and not by pydantic-settings, which answers broken JSON with an error of its own.
Prices = Annotated[dict[str, Price], NoDecode, BeforeValidator(_from_json), AfterValidator(_Prices)]


def _from_list(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


#: Written as text between commas.
Ports = Annotated[tuple[Annotated[int, Field(ge=1, le=65535)], ...], NoDecode, BeforeValidator(_from_list)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_from_list)]


def _cores() -> int:
    return len(os.sched_getaffinity(0))


class Settings(BaseSettings):
    """Settings of the service, each read from `CARREL_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="CARREL_", frozen=True, extra="ignore")

    data_dir: Path = Field(Path("data"), description="Where the database, vectors, blobs, caches and keys live.")
    database_url: str | None = Field(None, description="SQLAlchemy URL; the default is SQLite inside the data directory.")
    sqlite_synchronous: Literal["normal", "full"] = Field(
        "normal",
        description="`normal` survives the death of a process, `full` also a power loss, at one fsync a commit.",
    )
    host: str = Field("127.0.0.1", description="Address the API listens on. TLS ends in front of it.")
    port: int = Field(8321, ge=0, le=65535, description="Port the API listens on; 0 picks a free one.")
    url: str | None = Field(
        None, description="Where the CLI finds the service; the default is the one running on this data directory."
    )
    api_key: SecretStr | None = Field(
        None, description="Key the CLI uses; without one it uses the operator key on this machine."
    )
    cli_dir: Path = Field(
        Path("~/.cache/carrel"),
        description="Where `carrel ingest` notes which files are brought, so that it need not read them.",
    )
    secret_key: SecretStr | None = Field(
        None, description="Master key, the base64 of 32 bytes; without one, it is made in the data directory."
    )
    secret_key_file: Path | None = Field(None, description="File that holds the master key, instead of CARREL_SECRET_KEY.")
    previous_secret_keys: SecretStr | None = Field(
        None, description="Former master keys, separated by commas: they open what they sealed and seal nothing new."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")

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
    result_cache_mb: int = Field(
        32, ge=0, le=65536, description="Memory in MiB that an API process keeps answers in, shared by tenants; 0 keeps none."
    )

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

    profiles_file: Path | None = Field(
        None, description="TOML file of the operator's own profiles for collections, over those that are built in."
    )
    plans_file: Path | None = Field(
        None, description="TOML file of the operator's own plans for tenants, over those that are built in."
    )
    default_plan: str = Field("enterprise", description="Plan of tenants that were given none; `enterprise` limits nothing.")
    max_document_bytes: int = Field(32 * MIB, ge=1024, description="Largest document accepted.")
    max_text_chars: int = Field(20_000_000, ge=1024, description="Longest text that one document may become.")
    max_chunks: int = Field(50_000, ge=1, description="Most chunks that one document may become.")
    parse_seconds: int = Field(15, ge=1, le=300, description="Wall and CPU time that reading one document may take.")
    parse_memory_bytes: int = Field(1024 * MIB, ge=256 * MIB, description="Address space of the process that reads a document.")
    url_fetch: Literal["on", "off"] = Field("on", description="Whether documents can be brought by URL.")
    url_fetch_ports: Ports = Field((80, 443), description="Ports that are fetched from, separated by commas.")
    url_fetch_allow: Names = Field(
        (),
        description="Hosts, addresses and networks, separated by commas, that are fetched from although they are not public. "
        "Every tenant can then read what they answer.",
    )
    url_fetch_seconds: int = Field(60, ge=1, le=600, description="Time that fetching one URL may take, redirects included.")
    workers: int = Field(
        1, ge=1, le=64, description="Worker processes that `carrel serve` starts; one uses every core for embedding."
    )
    worker_concurrency: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Documents a worker has in flight when as many wait; the default is four a core, 4 to 64. "
        "Up to twice as many while several tenants have work.",
    )
    worker_tenant_concurrency: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Documents of one tenant that a worker has in flight at most while others have work; "
        "the default is an equal share.",
    )
    worker_fairness: Literal["on", "off"] = Field(
        "on",
        description="`on` takes jobs of all tenants in turns, those of one by priority and age; "
        "`off` by priority and age alone, for one tenant only.",
    )
    worker_scheduling: Literal["idle", "normal"] = Field(
        "idle", description="`idle` lets queries go first on a busy machine; `normal` shares equally."
    )
    queue_tenant_jobs: int = Field(
        10_000, ge=1, le=10**6, description="Jobs of one tenant that may wait; beyond that its new documents get 429."
    )
    queue_jobs: int = Field(
        100_000, ge=1, le=10**7, description="Jobs of all tenants that may wait; beyond that new documents get 503."
    )
    disk_free_bytes: int = Field(
        1024 * MIB,
        ge=0,
        description="New documents get 507 while the data directory's file system has less room than this.",
    )
    disk_free_percent: float = Field(
        1.0, ge=0, le=90, description="The same as a share of that file system; the larger of the two counts."
    )
    hold_lease_seconds: int = Field(120, ge=1, description="How long reserved budget waits for a worker that went silent.")
    sweep_seconds: float = Field(5.0, gt=0, description="How often returned holds and finished jobs are looked after.")
    reconcile_seconds: float = Field(
        3600.0, gt=0, description="How often vectors, jobs, contents and sums are compared with SQL, and repaired."
    )
    monthly_tokens: int | None = Field(
        None, ge=0, le=MAX_TOKENS, description="Embedding tokens a month for a new tenant; none is no limit."
    )
    events_keep_days: int = Field(30, ge=1, le=3650, description="Days that a tenant's events are kept for.")
    failed_content_days: float = Field(
        7,
        ge=0,
        le=3650,
        description="Days that the content of a failed or cancelled document is kept for a retry.",
    )
    requests_per_second: int = Field(200, ge=1, description="Requests a second allowed to one key.")

    def price_of(self, space: str, model: str) -> int:
        """Micro-dollars for a million tokens of the model: what is charged from now on."""
        return self.embedding_prices.get(space, self.embedding_prices.get(model, self.embedding_price))

    @property
    def jobs_in_flight(self) -> int:
        """Of one worker. On 2 cores the model has all that it can batch with 8; one job gives 0.79 of it."""
        return self.worker_concurrency or min(64, max(4, 4 * _cores()))

    @property
    def sql_url(self) -> str:
        return self.database_url or f"sqlite:///{self.database_file.resolve()}"

    @property
    def database_file(self) -> Path:
        """Of SQLite, where no other database is named."""
        return self.data_dir / "carrel.db"

    @property
    def prepared_models(self) -> Path:
        return self.models_dir or self.data_dir / "models"

    @property
    def service_file(self) -> Path:
        """Where a running service writes its address and process id."""
        return self.data_dir / "service.json"

    @property
    def operator_key_file(self) -> Path:
        return self.data_dir / "operator.key"

    @property
    def master_key_file(self) -> Path:
        return self.data_dir / "secrets" / "master.key"

    @property
    def runtime_dir(self) -> Path:
        """Short, private folder of sockets: a Unix socket's path may have 107 bytes, a data directory's more."""
        name = hashlib.sha256(str(self.data_dir.resolve()).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"carrel-{os.getuid()}" / name

    @property
    def engine_socket(self) -> Path:
        return self.runtime_dir / "engine.sock"
