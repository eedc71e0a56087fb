"""How far back a collection can be asked: as far as every version that was replaced since is still there."""

from __future__ import annotations

from collections.abc import Iterable

from config.clock import isoformat
from config.errors import InvalidInput
from rag.corpus import Collection

DAY_MS = 24 * 3600 * 1000


def reaches_back_to(collection: Collection, now: int) -> int | None:
    """Unix milliseconds; None where nothing is kept."""
    if collection.keep_versions_days == 0 or collection.versions_kept_since is None:
        return None
    return max(collection.versions_kept_since, now - collection.keep_versions_days * DAY_MS)


def kept_since(collection: Collection, days: int, now: int) -> int | None:
    """What to note when so many days are chosen instead of what was: what was removed by then does not come back."""
    reach = reaches_back_to(collection, now)
    return None if days == 0 else now if reach is None else reach


def require_kept(collections: Iterable[Collection], as_of: int, now: int) -> None:
    """Raise InvalidInput for a time that is not over or of which not everything is there."""
    if as_of > now:
        raise InvalidInput("`as_of` is in the future.", field="as_of")
    for collection in collections:
        reach = reaches_back_to(collection, now)
        if reach is None:
            raise InvalidInput(
                f"Collection {collection.name!r} keeps no former versions: set its `keep_versions_days`.", field="as_of"
            )
        if as_of < reach:
            raise InvalidInput(
                f"Collection {collection.name!r} has its former versions since {isoformat(reach)} only.", field="as_of"
            )
