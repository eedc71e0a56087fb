"""Many documents as streams of lines: what is sent, what the answers mean, and where to go on. Does no I/O itself.

A stream is cut into requests of some thousand lines, so that a client that sends everything before it reads is answered, and
so that only a part is sent again where a connection breaks: a document brought again as it is changes nothing.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from carrel_client.errors import APIError, BulkStoppedError, CarrelClientError, TransportError
from carrel_client.models import BulkResult

MEDIA_TYPE = "application/x-ndjson"
REQUEST_LINES, REQUEST_BYTES = 1_000, 8 << 20

Item = Mapping[str, Any] | str | bytes
Pause = Callable[[int, str | None], float]  #: tries so far and Retry-After → seconds


class Course:
    """Where a stream is. `body` what comes next, give each line of the answer to `answered`, and say how it ended."""

    def __init__(
        self,
        documents: Iterable[Item],
        *,
        max_errors: int,
        max_retries: int,
        pause: Pause,
        announced: Mapping[str, int] | None = None,
    ) -> None:
        """`announced`: what all of it brings, which the service is told with the first request."""
        self._coming = _numbered(documents)
        self._sent: deque[tuple[int, bytes]] = deque()  #: numbers and lines that have no answer yet
        self._max_errors, self._refused = max_errors, 0
        self._max_retries, self._tries, self._pause = max_retries, 0, pause
        self._summary: Mapping[str, Any] | None = None
        self._announced = dict(announced or {})

    def body(self) -> bytes | None:
        """What the next request sends; None at the end."""
        size = sum(len(line) for _, line in self._sent)
        while len(self._sent) < REQUEST_LINES and size < REQUEST_BYTES and (one := next(self._coming, None)):
            self._sent.append(one)
            size += len(one[1])
        self._summary = None
        return b"\n".join(line for _, line in self._sent) if self._sent else None

    @property
    def params(self) -> dict[str, int]:
        return {"max_errors": self._max_errors - self._refused, **self._announced}

    def answered(self, line: str) -> BulkResult | None:
        """The result that a line of the answer tells; None of the summary, and of a line that is to be sent again. Raise
        TransportError for a line that tells nothing."""
        answer = _told(line)
        if "summary" in answer:
            self._summary = answer["summary"]
            return None
        if answer.get("problem", {}).get("retryable"):
            return None
        if not self._sent:
            raise TransportError("more was answered than was sent")
        number, _ = self._sent.popleft()
        self._tries, self._announced = 0, {}
        result = BulkResult.parse({**answer, "line": number})
        self._refused += result.problem is not None
        return result

    def ended(self) -> float:
        """The answer has ended: seconds to wait before the next request. Raise BulkStoppedError if there is to be none."""
        if self._summary is None:
            return self.failed(TransportError("the answer was cut off"))
        stopped = self._summary["stopped"]
        if stopped is None:
            return 0.0
        problem = stopped["problem"]
        after = problem.get("retry_after_seconds")
        error = BulkStoppedError(self._next_line, problem)
        return self._again(error, None if after is None else str(after)) if problem.get("retryable") else _raised(error)

    def failed(self, error: CarrelClientError) -> float:
        """The request came to nothing, or was cut off: seconds to wait, or the error."""
        if isinstance(error, APIError) and not error.retryable:
            raise error
        return self._again(error, getattr(error, "retry_after", None))

    def _again(self, error: CarrelClientError, after: str | None) -> float:
        """A try that brought an answer begins the count anew."""
        if self._tries >= self._max_retries:
            raise error
        self._tries += 1
        return self._pause(self._tries - 1, after)

    @property
    def _next_line(self) -> int | None:
        return self._sent[0][0] if self._sent else None


def _told(line: str) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError as error:
        raise TransportError(f"a line of the answer is no JSON: {error}") from error
    if not isinstance(answer, dict):
        raise TransportError("a line of the answer is no JSON object")
    return answer


def _raised(error: CarrelClientError) -> float:
    raise error


def _numbered(documents: Iterable[Item]) -> Iterator[tuple[int, bytes]]:
    """Lines with their places in what was given, from 1. Empty ones are passed over."""
    for number, document in enumerate(documents, 1):
        if isinstance(document, str):
            line = document.encode("utf-8", "surrogatepass").strip()
        else:
            line = document.strip() if isinstance(document, bytes) else json.dumps(document).encode()
        if b"\n" in line:
            raise CarrelClientError(f"Document {number} is more than one line; give each as one, or as a mapping.")
        if line:
            yield number, line
