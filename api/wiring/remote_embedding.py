"""From settings to the embedder of a remote provider. Asks the provider nothing, so that one that is down holds up no start."""

from __future__ import annotations

from urllib.parse import urlsplit

from config.errors import SetupError
from config.settings import Settings
from rag.embedding.remote.client import ProviderClient
from rag.embedding.remote.embedder import RemoteEmbedder, RemoteLimits
from rag.embedding.remote.model import RemoteModel, RemoteSpec
from rag.embedding.remote.tokenizer import load_tokenizer


def build_remote_embedder(settings: Settings) -> RemoteEmbedder:
    """Raise SetupError saying what to set."""
    url, dimensions = _url(settings), settings.embedding_dimensions
    if dimensions is None:
        raise SetupError(
            "CARREL_EMBEDDING_RUNTIME is remote: set CARREL_EMBEDDING_DIMENSIONS to the width of the model's vectors "
            "(1536 for text-embedding-3-small). It names the space that vectors belong to, so it is not asked of the provider."
        )
    if settings.embedding_deadline_seconds + settings.embedding_timeout_seconds >= settings.hold_lease_seconds:
        raise SetupError(
            "CARREL_EMBEDDING_DEADLINE_SECONDS and _TIMEOUT_SECONDS must be less than CARREL_HOLD_LEASE_SECONDS in sum: "
            "a call that outlives the budget it reserved would be charged even if it fails."
        )
    spec = RemoteSpec(
        name=settings.embedding_model,
        dimensions=dimensions,
        max_tokens=settings.embedding_max_tokens,
        revision=settings.embedding_revision,
        query_prompt=settings.embedding_query_prompt or "",
        document_prompt=settings.embedding_document_prompt or "",
    )
    model = RemoteModel(spec, load_tokenizer(settings.embedding_tokenizer, cache_folder=settings.prepared_models))
    client = ProviderClient(
        url,
        _key(settings),
        model=spec.name,
        dimensions=dimensions,
        ask_dimensions=settings.embedding_send_dimensions,
        connections=settings.embedding_concurrency,
    )
    limits = RemoteLimits(
        concurrency=settings.embedding_concurrency,
        timeout_s=settings.embedding_timeout_seconds,
        deadline_s=settings.embedding_deadline_seconds,
        batch_count=settings.embedding_batch_count,
        batch_tokens=settings.embedding_batch_tokens,
        requests_per_minute=settings.embedding_rpm,
        tokens_per_minute=settings.embedding_tpm,
    )
    return RemoteEmbedder(model, client, limits)


def _url(settings: Settings) -> str:
    """Not shown when it is refused: it can hold a password."""
    advice = "set CARREL_EMBEDDING_URL to the provider's base URL, such as https://api.openai.com/v1"
    if settings.embedding_url is None:
        raise SetupError(f"CARREL_EMBEDDING_RUNTIME is remote: {advice}.")
    if not plain_url(settings.embedding_url):
        raise SetupError(f"CARREL_EMBEDDING_URL is no plain http or https URL: {advice}. Keys go to CARREL_EMBEDDING_API_KEY.")
    return settings.embedding_url


def plain_url(url: str) -> bool:
    """Whether it is http or https, with a host and a path and nothing else."""
    try:
        parts = urlsplit(url)
        plain = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment or parts.username)
        return bool(plain and (parts.port is None or parts.port > 0))
    except ValueError:
        return False


def _key(settings: Settings) -> str | None:
    if settings.embedding_api_key is None:
        return None
    key = settings.embedding_api_key.get_secret_value().strip()
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise SetupError("CARREL_EMBEDDING_API_KEY has characters that no key has; set it again.")
    return key or None
