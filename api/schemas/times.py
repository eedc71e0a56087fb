"""Times that are kept: Unix milliseconds of a year that every zone can show."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_END = dt.datetime(9999, 12, 31, tzinfo=dt.UTC)  # a later one, of a zone behind UTC, is in a year that no calendar has


def _kept(moment: dt.datetime) -> dt.datetime:
    if not _EPOCH <= moment < _END:
        raise ValueError("times before 1970, and from 9999-12-31 on, are not kept")
    return moment


Moment = Annotated[AwareDatetime, AfterValidator(_kept)]


def unix_ms(moment: dt.datetime | None) -> int | None:
    return None if moment is None else (moment - _EPOCH) // dt.timedelta(milliseconds=1)
