"""The audit entry of a change, in the transaction of that change: neither is on record without the other. A note before it, of
what is about to change, is not needed then: it and the entry at the end would each be a transaction of their own, which made
two thirds of what a turn's appending waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from api.middleware import event_of

T = TypeVar("T")
Record = Callable[[Session, T], None]
_MARK = "carrel_leaves_entry"
_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])


def leaves_entry(endpoint: _Endpoint) -> _Endpoint:
    """Declares a route whose change carries its entry (`Entry`): it leaves no note before. What it refuses, and what comes to
    another end than that entry says, is put on record as of every route.
    """
    setattr(endpoint, _MARK, True)
    return endpoint


def does_leave_entry(endpoint: Callable[..., Any] | None) -> bool:
    return getattr(endpoint, _MARK, False)


class OwnEntry:
    def __init__(self, request: Request) -> None:
        self._request, self._log = request, request.app.state.services.audit

    def records(self, status: int, detail: Callable[[T], dict[str, Any]], also: Record[T] | None) -> Record[T]:
        """For a domain call's `record`: writes the entry, and before it what else is to be written."""

        def record(session: Session, value: T) -> None:
            if also is not None:
                also(session, value)
            self._log.add(session, event_of(self._request.scope, status, detail(value)))
            self._request.state.audited = status  # an answer with any other status has an entry of its own

        return record

    def write(self, status: int, detail: dict[str, Any]) -> None:
        """Of a retrieval, in the thread that answers it: to go to another for the entry alone would take 0.1 ms."""
        self._log.append(event_of(self._request.scope, status, detail))
        self._request.state.audited = status


async def _entry(request: Request) -> OwnEntry:
    return OwnEntry(request)


Entry = Annotated[OwnEntry, Depends(_entry)]
