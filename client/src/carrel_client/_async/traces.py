"""What questions left behind, and asking them again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Unpack

from carrel_client._async.transport import AsyncTransport, pages
from carrel_client.errors import TransportError
from carrel_client.exchange import given, path_of
from carrel_client.traces import Otherwise, Replay, ReplayReport, SkippedReplay, Trace

_PATH = "/v1/traces"


_KINDS: Mapping[str, type[Replay] | type[SkippedReplay] | type[ReplayReport]] = {
    "replay": Replay,
    "skipped": SkippedReplay,
    "report": ReplayReport,
}


class AsyncTraces:
    """`carrel.traces`. A key that acts for a subject reaches that subject's alone."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def list(
        self,
        *,
        kind: str | None = None,
        subject: str | None = None,
        session_id: str | None = None,
        since: str | None = None,
        until: str | None = None,
        page_size: int = 100,
    ) -> AsyncIterator[Trace]:
        """Newest first. `since` and `until` are ISO 8601 with a zone.

        Example: `asked = [trace.query async for trace in carrel.traces.list(kind="query")]`
        """
        wanted = {"kind": kind, "subject": subject, "session_id": session_id, "since": since, "until": until}
        async for item in pages(self._transport, _PATH, page_size, **wanted):
            yield Trace.parse(item)

    async def get(self, trace_id: str) -> Trace:
        """A trace with all that was kept of it.

        Example: `trace = await carrel.traces.get(result.trace_id)`
        """
        return Trace.parse(await self._transport.call("GET", path_of(_PATH, trace_id)))

    async def replay(self, trace_id: str, **otherwise: Unpack[Otherwise]) -> Replay:
        """Ask it again, of the index as it is.

        Example: `replay = await carrel.traces.replay(result.trace_id, profile="fast")`
        """
        path, body = path_of(_PATH, trace_id, "replay"), given(otherwise)
        return Replay.parse(await self._transport.call("POST", path, json=body, repeatable=True))

    async def replays(
        self,
        *,
        last: int = 100,
        session_id: str | None = None,
        subject: str | None = None,
        kind: str | None = None,
        **otherwise: Unpack[Otherwise],
    ) -> AsyncIterator[Replay | SkippedReplay | ReplayReport]:
        """The newest so many in their order, each as it is done, and a report at the end. Raise TransportError without one.

        Example: `told = [line async for line in carrel.traces.replays(last=100)]`
        """
        body = {"last": last, **given({"session_id": session_id, "subject": subject, "kind": kind}), **given(otherwise)}
        ended, content = False, json.dumps(body).encode()
        answer = self._transport.lines("POST", f"{_PATH}/replay", content=content, headers={"Content-Type": "application/json"})
        async with aclosing(answer) as lines:
            async for line in lines:
                [(kind_of_line, told)] = json.loads(line).items()
                ended = kind_of_line == "report"
                yield _KINDS[kind_of_line].parse(told)
        if not ended:
            raise TransportError("the answer was cut off")
