"""Turns that stand in every context of their session."""

from __future__ import annotations

from dataclasses import dataclass

from carrel_client.models import Model
from carrel_client.transport import Transport, path_of


@dataclass(frozen=True)
class Pin(Model):
    session_id: str
    seq: int
    role: str
    content: str
    pinned_at: str


class Pins:
    """`carrel.pins`. Reading needs the scope `query`, the rest `converse`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, session_id: str, *, seq: int, idempotency_key: str | None = None) -> Pin:
        """Pin the turn of this number. Pinned already, it stays as it is."""
        path = path_of("/v1/sessions", session_id, "pins")
        return Pin.parse(self._transport.call("POST", path, json={"seq": seq}, idempotency_key=idempotency_key).json())

    def list(self, session_id: str) -> list[Pin]:
        """In the order of their turns."""
        answer = self._transport.call("GET", path_of("/v1/sessions", session_id, "pins")).json()
        return [Pin.parse(item) for item in answer["items"]]

    def delete(self, session_id: str, *, seq: int) -> Pin:
        return Pin.parse(self._transport.call("DELETE", path_of("/v1/sessions", session_id, "pins", str(seq))).json())
