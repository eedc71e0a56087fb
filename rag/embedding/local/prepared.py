"""Models prepared for this machine, under `models/<fingerprint>/`: made once, whole or not at all, and measured before use."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from config.errors import SetupError
from rag.embedding.local.models import pooling, weights_sha256
from rag.embedding.local.probes import LEAST_MEAN, LEAST_WORST
from rag.embedding.runtime import Fingerprint

log = logging.getLogger(__name__)

MANIFEST, PROBE_FILE = "manifest.json", "probes.npy"
LONGEST_S = 600.0  # that preparing may take; all-MiniLM-L6-v2 takes about 8 s, most of it importing torch
VERSION = 1  # of what is made: raise it, and everybody's is made anew


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was made, and how near it comes to the original in fp32."""

    openvino: str  #: release that made it
    precision: str
    max_tokens: int
    dimensions: int
    cosine_mean: float
    cosine_min: float

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        return cls(**json.loads((folder / MANIFEST).read_text(encoding="utf-8")))

    def write(self, folder: Path) -> None:
        (folder / MANIFEST).write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @property
    def trusted(self) -> bool:
        return self.cosine_mean >= LEAST_MEAN and self.cosine_min >= LEAST_WORST


def prepare(folder: Path, models: Path, *, precision: str) -> tuple[Path, Fingerprint]:
    """The prepared model's folder and fingerprint; it is made if it is missing. Raises SetupError if it cannot be trusted."""
    weights, pooled = weights_sha256(folder), pooling(folder)
    name = hashlib.blake2b("\0".join((weights, pooled, precision, str(VERSION))).encode(), digest_size=10).hexdigest()
    target = models / name
    if not (target / MANIFEST).is_file():
        models.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _alone(models):  # api and worker start together: one makes it, the other waits
            if not (target / MANIFEST).is_file():
                _make(folder, target, precision)
    manifest = Manifest.read(target)
    return target, Fingerprint(weights, pooled, True, manifest.max_tokens, precision, manifest.dimensions)


def _make(folder: Path, target: Path, precision: str) -> None:
    log.info("the model is being prepared for this machine", extra={"model": str(folder), "precision": precision})
    work = Path(tempfile.mkdtemp(prefix=".making-", dir=target.parent))
    try:
        _convert(folder, work, precision)
        manifest = Manifest.read(work)
        if not manifest.trusted:
            raise SetupError(
                f"Prepared for OpenVINO in {precision}, {folder.name} is too far from its original: cosine "
                f"{manifest.cosine_mean:.5f} in the mean and {manifest.cosine_min:.5f} at worst, where {LEAST_MEAN} and "
                f"{LEAST_WORST} are asked for. "
                "Set CARREL_EMBEDDING_RUNTIME=sentence-transformers or CARREL_EMBEDDING_PRECISION=fp32."
            )
        for path in work.iterdir():
            _sync(path)
        work.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    log.info("the model is prepared", extra={"cosine_mean": manifest.cosine_mean, "cosine_min": manifest.cosine_min})


def _convert(folder: Path, work: Path, precision: str) -> None:
    command = [sys.executable, "-P", "-m", "rag.embedding.local.conversion", str(folder), str(work), precision]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"Preparing the model for OpenVINO took longer than {LONGEST_S:g} s.") from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise SetupError(
            f"The model could not be prepared for OpenVINO ({reason}). It takes torch and sentence-transformers once: "
            "pip install -c constraints.txt 'carrel-server[local]'; or set CARREL_EMBEDDING_RUNTIME=sentence-transformers."
        )


@contextmanager
def _alone(models: Path) -> Iterator[None]:
    """The lock goes with its holder, however that ends; what it left half made is removed by the next."""
    with (models / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for left in models.glob(".making-*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
