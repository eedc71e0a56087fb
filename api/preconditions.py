"""The headers `If-Match` and `If-None-Match` of requests that change a document."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header

from ingestion.intake.preconditions import Precondition

_Match = Annotated[
    str | None,
    Header(alias="If-Match", description="Only if the document is at this `etag`, else 412; `*`: only if it exists."),
]
_NoneMatch = Annotated[str | None, Header(alias="If-None-Match", description="`*`: only if there is no such document yet.")]


async def _expected(if_match: _Match = None, if_none_match: _NoneMatch = None) -> Precondition:
    return Precondition.parse(if_match, if_none_match)


async def _if_match(if_match: _Match = None) -> Precondition:
    return Precondition.parse(if_match, None)


Expected = Annotated[Precondition, Depends(_expected)]
IfMatch = Annotated[Precondition, Depends(_if_match)]
