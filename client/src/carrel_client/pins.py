"""Turns that stand in every context of their session."""

from __future__ import annotations

from dataclasses import dataclass

from carrel_client.models import Model


@dataclass(frozen=True)
class Pin(Model):
    session_id: str
    seq: int
    role: str
    content: str
    pinned_at: str
