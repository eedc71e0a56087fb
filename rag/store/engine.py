"""The engine process: Edge shards behind a Unix socket. Every request for points names its tenant, and the store confines it.

Searches run as they come; writes are acknowledged after one fsync that all writes since the last one share
(group commit), in a thread, so that searches go on meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rag.store import wire
from rag.store.base import InvalidPoint, Space, VectorScope
from rag.store.files import sync_files
from rag.store.shards import EdgeStore, PlacedVectors
from rag.store.upkeep import Rules, Upkeep

log = logging.getLogger(__name__)

IDLE_FLUSH_S = 30.0
MAX_UNFLUSHED_S = 300.0


class TooLate(Exception):
    """A write waited for longer than its caller does."""


def _search(vectors: PlacedVectors, header: dict[str, Any], body: bytes) -> list[list[tuple[str, float, str]]]:
    legs = vectors.search(wire.unpack_searches(header["searches"], body))
    return [[(hit.id, hit.score, hit.document) for hit in leg] for leg in legs]


_READS: dict[str, Callable[[PlacedVectors, dict[str, Any], bytes], Any]] = {
    "search": _search,
    "ids": lambda vectors, header, _body: vectors.ids(header["document"]),
    "page": lambda vectors, header, _body: vectors.page(header["after"], int(header["limit"])),
    "existing": lambda vectors, header, _body: sorted(vectors.existing(list(map(str, header["ids"])))),
    "vectors": lambda vectors, header, _body: wire.pack_named(vectors.vectors(list(map(str, header["ids"])))),
    "count": lambda vectors, _header, _body: vectors.count(),
}


_SPACE_READS: dict[str, Callable[[EdgeStore, Space, dict[str, Any]], Any]] = {
    "tenants": lambda store, space, header: store.tenants(space, header["after"], int(header["limit"])),
    "dedicated": lambda store, space, _header: [asdict(one) for one in store.dedicated(space)],
    "crowded": lambda store, space, header: store.crowded(space, int(header["at_least"])),
}


class EngineServer:
    def __init__(self, store: EdgeStore, rules: Rules | None = None) -> None:
        self._store = store
        self._upkeep = Upkeep(store, rules or Rules())
        self._commit: asyncio.Task[None] | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._written = False
        self._run_id = secrets.token_hex(8)

    async def serve(self, path: Path, stop: asyncio.Event) -> None:
        """Listen until `stop` is set, then drop the connections, flush and close. What was not acknowledged is repeated."""
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._client, path, limit=wire.MAX_FRAME)
        os.chmod(path, 0o600)
        log.info("engine is listening", extra={"socket": str(path)})
        background = [asyncio.create_task(self._flush_when_idle()), asyncio.create_task(self._upkeep.run())]
        await stop.wait()
        server.close()
        self._store.builder.stop()
        for task in [*self._clients, *background]:
            task.cancel()
        await asyncio.gather(*self._clients, *background, return_exceptions=True)
        self._store.close()
        path.unlink(missing_ok=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or not _same_user(writer):
            writer.close()
            return
        self._clients.add(task)
        try:
            # A frame that cannot be read ends its connection: what follows it cannot be trusted to be a frame.
            with contextlib.suppress(asyncio.IncompleteReadError, OSError, ValueError, asyncio.CancelledError):
                await self._converse(reader, writer)
        finally:
            self._clients.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, body = wire.sizes(await reader.readexactly(wire.PREFIX.size))
            header = wire.decode_header(await reader.readexactly(head))
            writer.write(await self._answer(header, await reader.readexactly(body)))
            await writer.drain()

    async def _answer(self, header: dict[str, Any], body: bytes) -> bytes:
        try:
            return wire.encode({"ok": True, "result": await self._run(header, body)})
        except (InvalidPoint, wire.WireError, KeyError, TypeError, ValueError) as error:
            return wire.encode({"ok": False, "kind": "invalid", "detail": str(error)})
        except TooLate as error:
            return wire.encode({"ok": False, "kind": "late", "detail": str(error)})
        except Exception as error:
            log.exception("engine operation failed", extra={"operation": header.get("op")})
            return wire.encode({"ok": False, "kind": "failed", "detail": type(error).__name__})

    async def _run(self, header: dict[str, Any], body: bytes) -> Any:
        operation = header["op"]
        if header["protocol"] != wire.PROTOCOL:
            raise wire.WireError(f"protocol {header['protocol']}, this engine speaks {wire.PROTOCOL}")
        if operation == "health":
            return asdict(replace(self._store.health(), run=self._run_id))
        space = Space(header["space"], int(header["dimensions"]))
        if operation in _SPACE_READS:
            return _SPACE_READS[operation](self._store, space, header)
        if not header["tenant"]:
            raise wire.WireError("a request without a tenant")
        vectors = self._store.for_tenant(VectorScope(header["tenant"]), space)
        self._upkeep.asked_at = time.monotonic()
        if operation in _READS:
            return _READS[operation](vectors, header, body)
        if operation == "place":
            return self._upkeep.place(header["tenant"], space, str(header["collection"]), header["placement"])
        await self._upkeep.writable.wait()
        if time.monotonic() > float(header["expires"]):  # one clock for all processes of a machine
            raise TooLate("the caller gave this write up; carried out now it could undo a later one")
        self._write(vectors, operation, header, body)
        await self._synced()
        return None

    def _write(self, vectors: PlacedVectors, operation: str, header: dict[str, Any], body: bytes) -> None:
        if operation == "upsert":
            vectors.upsert(wire.unpack_points(header["points"], body))
        elif operation == "delete_points":
            vectors.delete_points(list(map(str, header["ids"])))
        elif operation == "delete_document":
            vectors.delete_document(str(header["document"]))
        else:
            raise wire.WireError(f"unknown operation {operation!r}")
        self._written = True

    async def _synced(self) -> None:
        """Wait for an fsync that began after this call's write: the one under way may have missed it."""
        if self._commit is not None and not self._commit.done():
            await asyncio.shield(self._commit)  # others wait for it too
        if self._commit is None or self._commit.done():
            self._commit = asyncio.create_task(self._sync())
        await asyncio.shield(self._commit)

    async def _sync(self) -> None:
        await asyncio.sleep(0)  # let the writes that are already here join
        spaces, files = self._store.unsynced()
        try:
            await asyncio.to_thread(sync_files, files)
        except OSError:
            self._store.still_unsynced(spaces)
            raise

    async def _flush_when_idle(self) -> None:
        """After a pause in the writing, and at the latest after a few minutes of it: the log is what a start replays."""
        waited = 0.0
        while True:
            written, self._written = self._written, False
            await asyncio.sleep(IDLE_FLUSH_S)
            waited = waited + IDLE_FLUSH_S if written or waited else 0.0
            if waited and (not self._written or waited >= MAX_UNFLUSHED_S):
                await self._upkeep.writable.wait()
                if self._flushed():
                    waited = 0.0

    def _flushed(self) -> bool:
        """False: the disk is full, say; the log has it all, and it is tried again after the next pause."""
        try:
            self._store.flush()
        except Exception:
            log.exception("segments could not be written; it is tried again")
            return False
        return True


def _same_user(writer: asyncio.StreamWriter) -> bool:
    peer: socket.socket = writer.get_extra_info("socket")
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", raw)
    return bool(uid == os.getuid())
