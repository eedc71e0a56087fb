"""What the benchmarks do with a running service: bring documents, ask, and tell the model's time from the rest."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.corpus import Text
from benchmarks.harness import BenchmarkError, in_parallel
from benchmarks.model_math import Encoder
from carrel_client import Carrel, Passage
from config.settings import Settings
from rag.embedding.hashing import DIMENSIONS, HashRuntime
from rag.embedding.local.models import resolve_model

#: Where models are prepared for all benchmarks of this user: otherwise every service would begin by doing so.
MODELS = Path(tempfile.gettempdir()) / f"carrel-benchmarks-{os.getuid()}" / "models"
#: The worker shares equally and one client may ask as fast as it can: what is measured is work, not politeness.
SERVICE = {"worker_scheduling": "normal", "requests_per_second": 5_000, "models_dir": MODELS}
IN_FLIGHT = 16  #: documents brought at once while a service is filled: twice what its worker takes
TOP_K = 10


@dataclass(frozen=True)
class Asked:
    """One question as its client saw it, in milliseconds."""

    wall_ms: float
    model_ms: float
    passages: tuple[Passage, ...]

    @property
    def outside_ms(self) -> float:
        """Everything but the model: HTTP, identity, budget, search, SQL, and the client itself."""
        return self.wall_ms - self.model_ms


def model_folder() -> Path:
    """Of the model that a service without settings would load."""
    return resolve_model(Settings.model_construct().embedding_model, allow_download=False)


def tokenizer_of(runtime: str) -> str:
    """The tokenizer that a service with this runtime splits by, without loading the model."""
    if runtime == "hash":
        return HashRuntime().tokenizer_json
    return (model_folder() / "tokenizer.json").read_text(encoding="utf-8")


def dimensions_of(runtime: str) -> int:
    return DIMENSIONS if runtime == "hash" else Encoder.of(model_folder()).width


def ask(client: Carrel, question: str) -> Asked:
    """Raises BenchmarkError if the question was answered from the cache or found nothing."""
    began = time.perf_counter()
    result = client.query(question, top_k=TOP_K)
    wall = (time.perf_counter() - began) * 1000
    if result.usage["cached_tokens"] or not result.passages:
        raise BenchmarkError(f"{question!r} was known already, or found nothing: its time says nothing.")
    timings = result.timings_ms
    # `embedding` also holds tokenising, cache and budget; a service that reports the model alone is taken at its word.
    return Asked(wall, timings.get("model", timings["embedding"]), tuple(result.passages))


def bring(client: Carrel, document: Text) -> int:
    """Ingest one document; return how many chunks it became."""
    job = client.documents.create(text=document.text, title=document.title, external_id=document.name).wait()
    if job is None:
        raise BenchmarkError(f"{document.name} was there already.")
    return job.chunks_total


def fill(client: Carrel, documents: Sequence[Text]) -> int:
    """Ingest all of them, several in flight; return how many chunks they became."""
    return sum(in_parallel(lambda document: bring(client, document), documents, threads=IN_FLIGHT, label="loading"))
