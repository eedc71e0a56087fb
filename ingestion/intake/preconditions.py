"""`If-Match` and `If-None-Match`: at which version a document must be for a change to be made. Pure.

An entity tag names the document and the number of its newest version, whatever became of that: of two writers that saw the
same document, one comes too late (RFC 9110, 13.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from config.errors import InvalidInput, VersionConflict
from rag.corpus import Document

MAX_TAGS = 20
_TAG = re.compile(r'(?:W/)?"[!#-~]*"')
_ANY = "*"


def etag_of(document: Document) -> str:
    return f'"{document.id}.{document.last_number}"'


@dataclass(frozen=True, slots=True)
class Precondition:
    match: tuple[str, ...] | None = None  #: If-Match: one of these, or any version of a document that exists
    absent: bool = False  #: If-None-Match: *

    @classmethod
    def parse(cls, match: str | None, none_match: str | None) -> Precondition:
        """Raise InvalidInput for anything but entity tags, or `*` alone in `none_match`."""
        if none_match is not None and none_match.strip() != _ANY:
            raise InvalidInput("`If-None-Match` takes `*` only: create, never replace.", field="if-none-match")
        tags = None if match is None else tuple(tag.strip() for tag in match.split(",", MAX_TAGS))
        if tags is not None and tags != (_ANY,) and (len(tags) > MAX_TAGS or not all(map(_TAG.fullmatch, tags))):
            raise InvalidInput(f"`If-Match` is `*` or up to {MAX_TAGS} entity tags.", field="if-match", limit=MAX_TAGS)
        return cls(tags, none_match is not None)

    def require(self, document: Document | None) -> None:
        """Raise VersionConflict unless this document, or that there is none, is what the caller expects."""
        present = None if document is None else etag_of(document)
        if self.absent and document is not None:
            raise VersionConflict(
                f"A document of this name exists, at version {document.last_number}.", field="if-none-match", etag=present
            )
        if self.match is None or (document is not None and (self.match == (_ANY,) or present in self.match)):
            return
        now = "There is no such document." if document is None else f"The document is at version {document.last_number} now."
        raise VersionConflict(now, field="if-match", etag=present)


ANYTHING = Precondition()
