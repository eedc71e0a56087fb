"""Reading and answering a stream of lines: bounds, order, and every way in which it ends."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError
from starlette.requests import ClientDisconnect

from api import bulk, bulk_source
from api.bulk import BulkStream, BulkTurns, Done, Tally
from api.bulk_source import Line, Lines
from config.errors import InvalidInput, RateLimited, Unavailable

Message = dict[str, Any]


@dataclass
class Work:
    """Takes every line but those that say otherwise; remembers its batches."""

    batches: list[list[Line]] = field(default_factory=list)
    tally: Tally | None = None
    error: Exception | None = None

    def take(self, lines: Sequence[Line], most_refused: int) -> list[Done]:
        self.batches.append([*lines])
        if self.error is not None:
            raise self.error
        done: list[Done] = []
        for line in lines:
            done.append(self._one(line))
            refused = [one for one in done if one.refusal]
            if len(refused) >= most_refused or (refused and refused[-1].refusal.retryable):  # type: ignore[union-attr]
                break
        return done

    def _one(self, line: Line) -> Done:
        if line.content == b"busy":
            return Done(429, {}, RateLimited("The queue is full.", retry_after_s=3))
        if line.content == b"bad" or line.content is None:
            return Done(422, {}, InvalidInput("x" * 10_000, field="line"))
        return Done(202, {"document_id": f"doc_{line.number}"})

    def ended(self, tally: Tally) -> None:
        self.tally = tally


@dataclass
class Stand:
    pieces: list[Any]  #: bytes; a number: seconds of silence; None: the client goes away
    work: Work = field(default_factory=Work)
    max_line: int = 100
    max_errors: int = 10
    draining: threading.Event = field(default_factory=threading.Event)
    reads: bool = True
    sent: bytearray = field(default_factory=bytearray)
    closed: int = 0

    async def receive(self) -> Message:
        while self.pieces and isinstance(self.pieces[0], float):
            await asyncio.sleep(self.pieces.pop(0))
        if not self.pieces:
            return {"type": "http.request", "body": b"", "more_body": False}
        piece = self.pieces.pop(0)
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": True}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body" and not self.reads:
            await asyncio.Event().wait()
        self.sent += message.get("body", b"")

    def _close(self) -> None:
        self.closed += 1

    def run(self) -> list[Message]:
        stream = BulkStream(
            self.work, max_line=self.max_line, max_errors=self.max_errors, draining=self.draining, close=self._close
        )
        try:
            asyncio.run(stream({"type": "http"}, self.receive, self.send))
        finally:
            assert self.closed == 1
            assert self.work.tally is not None
        return [json.loads(line) for line in self.sent.splitlines()]


@given(st.lists(st.binary(max_size=12)), st.integers(1, 40), st.binary(max_size=3))
def test_lines_are_the_same_however_the_body_is_cut(lines: list[bytes], step: int, last: bytes) -> None:
    body = b"".join(line.replace(b"\n", b".") + b"\n" for line in lines) + last.replace(b"\n", b".")
    cut, found = Lines(8), []
    for at in range(0, len(body), step):
        found += [*cut.feed(body[at : at + step])]
    found += [line for line in [cut.last()] if line]
    expected = body.split(b"\n")[:-1] + ([body.split(b"\n")[-1]] if body.split(b"\n")[-1] else [])
    assert found == [Line(number, None if len(line) > 8 else line.strip()) for number, line in enumerate(expected, 1)]


def test_answers_are_in_order_and_empty_lines_count_as_places() -> None:
    stand = Stand([b"a\n\nbad\n", b"x" * 300, b"\nb\nc"])
    *answers, last = stand.run()
    assert [(answer["line"], answer["status"]) for answer in answers] == [(1, 202), (3, 422), (4, 422), (5, 202), (6, 202)]
    assert last["summary"] == {"lines": 5, "accepted": 3, "unchanged": 0, "refused": 2, "stopped": None}
    assert len(answers[1]["problem"]["detail"]) == bulk.MAX_TOLD


def test_batches_are_bounded_by_lines_bytes_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    stand = Stand([b"a\n" * 70])
    assert len(stand.run()) == 71
    assert [len(batch) for batch in stand.work.batches] == [32, 32, 6]
    monkeypatch.setattr(bulk_source, "BATCH_BYTES", 100)
    stand = Stand([(b"x" * 60 + b"\n") * 5])
    stand.run()
    assert [len(batch) for batch in stand.work.batches] == [2, 2, 1]
    stand = Stand([b"a\n", b"b\n", 0.3, b"c\n"])
    stand.run()
    assert [len(batch) for batch in stand.work.batches] == [2, 1]


def test_it_stops_at_the_last_refusal_that_is_allowed() -> None:
    stand = Stand([b"a\nbad\nbad\nb\n"], max_errors=2)
    *answers, last = stand.run()
    assert [answer["line"] for answer in answers] == [1, 2, 3]
    assert (last["summary"]["stopped"]["next_line"], last["summary"]["stopped"]["problem"]["limit"]) == (4, 2)


def test_a_refusal_that_would_not_stand_stops_it_and_is_to_be_sent_again() -> None:
    *answers, last = Stand([b"a\nbusy\nb\n"]).run()
    assert [answer["status"] for answer in answers] == [202, 429]
    stopped = last["summary"]["stopped"]
    assert (stopped["next_line"], stopped["problem"]["code"], stopped["problem"]["retry_after_seconds"]) == (
        2,
        "rate_limited",
        3,
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unavailable("Disk full."), "unavailable"),
        (OperationalError("SELECT secret", {}, Exception("secret")), "unavailable"),
        (RuntimeError("secret"), "internal_error"),
    ],
)
def test_a_batch_that_fails_ends_the_stream_where_it_began(error: Exception, code: str) -> None:
    stand = Stand([b"\na\nb\n"], Work(error=error))
    [last] = stand.run()
    assert (last["summary"]["stopped"]["next_line"], last["summary"]["stopped"]["problem"]["code"]) == (2, code)
    assert b"secret" not in stand.sent


def test_who_sends_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_source, "SILENCE_S", 0.4)
    *answers, last = Stand([b"a\n", 0.2, b"\n", 0.2, b"\n", 0.2, b"b\nc", 0.2, b"c", 5.0]).run()
    assert [answer["line"] for answer in answers] == [1, 4]
    assert (last["summary"]["stopped"]["next_line"], last["summary"]["stopped"]["problem"]["code"]) == (5, "too_slow")


def test_a_stop_of_the_process_ends_it_between_two_batches() -> None:
    stand = Stand([5.0])
    stand.draining.set()
    [last] = stand.run()
    assert (last["summary"]["stopped"]["next_line"], last["summary"]["stopped"]["problem"]["code"]) == (1, "unavailable")


def test_who_goes_away_ends_it() -> None:
    stand = Stand([b"a\n", 0.3, b"half a li", None])
    with pytest.raises(ClientDisconnect):
        stand.run()
    assert [len(batch) for batch in stand.work.batches] == [1]
    assert stand.work.tally is not None
    assert stand.work.tally.problem == {"code": "client_disconnected"}


@pytest.mark.parametrize("lines", [3, 200])
def test_who_never_reads_is_given_up(monkeypatch: pytest.MonkeyPatch, lines: int) -> None:
    monkeypatch.setattr(bulk, "UNREAD_S", 0.2)
    monkeypatch.setattr(bulk, "OUTBOX_BYTES", 1_000)
    stand = Stand([b"a\n" * 20] * lines, reads=False)
    with pytest.raises(ClientDisconnect):
        stand.run()
    assert len(stand.work.batches) <= 3  # the outbox bounds what is taken in for nobody


def test_turns_are_counted_for_each_tenant_and_for_all() -> None:
    turns = BulkTurns()
    ends = [turns.begin("ash") for _ in range(bulk.MAX_STREAMS_OF_ONE)]
    with pytest.raises(RateLimited):
        turns.begin("ash")
    ends.pop()()
    turns.begin("ash")
    for number in range(bulk.MAX_STREAMS - bulk.MAX_STREAMS_OF_ONE):
        turns.begin(f"tenant {number}")
    with pytest.raises(RateLimited):
        turns.begin("elm")
