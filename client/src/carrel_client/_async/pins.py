"""Turns that stand in every context of their session."""

from __future__ import annotations

from carrel_client._async.transport import AsyncTransport
from carrel_client.exchange import path_of
from carrel_client.pins import Pin


class AsyncPins:
    """`carrel.pins`. Reading needs the scope `query`, the rest `converse`."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(self, session_id: str, *, seq: int, idempotency_key: str | None = None) -> Pin:
        """Pin the turn of this number. Pinned already, it stays as it is.

        Example: `await carrel.pins.create(session.id, seq=1)`
        """
        path = path_of("/v1/sessions", session_id, "pins")
        return Pin.parse(await self._transport.call("POST", path, json={"seq": seq}, idempotency_key=idempotency_key))

    async def list(self, session_id: str) -> list[Pin]:
        """In the order of their turns.

        Example: `print([pin.content for pin in await carrel.pins.list(session.id)])`
        """
        answer = await self._transport.call("GET", path_of("/v1/sessions", session_id, "pins"))
        return [Pin.parse(item) for item in answer["items"]]

    async def delete(self, session_id: str, *, seq: int) -> Pin:
        """The turn stands in contexts as any other again.

        Example: `await carrel.pins.delete(session.id, seq=1)`
        """
        return Pin.parse(await self._transport.call("DELETE", path_of("/v1/sessions", session_id, "pins", str(seq))))
