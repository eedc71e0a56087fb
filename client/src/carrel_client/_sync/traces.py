"""What questions left behind, and asking them again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Unpack

from carrel_client._sync.transport import Transport, pages
from carrel_client.errors import TransportError
from carrel_client.exchange import given, path_of
from carrel_client.traces import Otherwise, Replay, ReplayReport, SkippedReplay, Trace

_PATH = "/v1/traces"


_KINDS: Mapping[str, type[Replay] | type[SkippedReplay] | type[ReplayReport]] = {
    "replay": Replay,
    "skipped": SkippedReplay,
    "report": ReplayReport,
}


class Traces:
    """`carrel.traces`. A key that acts for a subject reaches that subject's alone."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self,
        *,
        kind: str | None = None,
        subject: str | None = None,
        session_id: str | None = None,
        since: str | None = None,
        until: str | None = None,
        page_size: int = 100,
    ) -> Iterator[Trace]:
        """Newest first. `since` and `until` are ISO 8601 with a zone.

        Example: `asked = [trace.query for trace in carrel.traces.list(kind="query")]`
        """
        wanted = {"kind": kind, "subject": subject, "session_id": session_id, "since": since, "until": until}
        for item in pages(self._transport, _PATH, page_size, **wanted):
            yield Trace.parse(item)

    def get(self, trace_id: str) -> Trace:
        """A trace with all that was kept of it.

        Example: `trace = carrel.traces.get(result.trace_id)`
        """
        return Trace.parse(self._transport.call("GET", path_of(_PATH, trace_id)))

    def replay(self, trace_id: str, **otherwise: Unpack[Otherwise]) -> Replay:
        """Ask it again, of the index as it is.

        Example: `replay = carrel.traces.replay(result.trace_id, profile="fast")`
        """
        path, body = path_of(_PATH, trace_id, "replay"), given(otherwise)
        return Replay.parse(self._transport.call("POST", path, json=body, repeatable=True))

    def replays(
        self,
        *,
        last: int = 100,
        session_id: str | None = None,
        subject: str | None = None,
        kind: str | None = None,
        **otherwise: Unpack[Otherwise],
    ) -> Iterator[Replay | SkippedReplay | ReplayReport]:
        """The newest so many in their order, each as it is done, and a report at the end. Raise TransportError without one.

        Example: `told = list(carrel.traces.replays(last=100))`
        """
        body = {"last": last, **given({"session_id": session_id, "subject": subject, "kind": kind}), **given(otherwise)}
        ended, content = False, json.dumps(body).encode()
        answer = self._transport.lines("POST", f"{_PATH}/replay", content=content, headers={"Content-Type": "application/json"})
        with closing(answer) as lines:
            for line in lines:
                [(kind_of_line, told)] = json.loads(line).items()
                ended = kind_of_line == "report"
                yield _KINDS[kind_of_line].parse(told)
        if not ended:
            raise TransportError("the answer was cut off")
