"""Receipts of what was erased."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from carrel_client.models import Model


@dataclass(frozen=True)
class Erasure(Model):
    id: str
    kind: str  #: session or subject
    session_id: str | None
    state: str  #: running or done
    before: Mapping[str, int]  #: rows by table, points, files and kept results, when it was asked for
    after: Mapping[str, int]  #: the same when it was done
    requested_at: str
    finished_at: str | None
