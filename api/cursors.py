"""Cursors of lists: where a list goes on, sealed for one caller, one list and one set of filters.

A route takes `cursor: Cursor`, lists from `cursor.position` and answers `cursor.next(…)`; the rest happens here.
"""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass
from typing import Annotated

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fastapi import Depends, Query, Request

from config.errors import InvalidInput
from tenants.identity.authenticator import Identity

NONCE_BYTES = 12  # random: at 1,000 pages a second two are equal with a chance of 2⁻³³ after 50 days, and reveal two ids
PAGING = ("after", "limit")  # what may differ between the pages of one list
OPERATOR = "operator"

#: How many rows a page has at most. A route gives the default.
Limit = Annotated[int, Query(ge=1, le=100)]
After = Annotated[str | None, Query(description="`next` of the previous page; the other parameters stay the same.")]


class CursorSeal:
    """Seals positions with AES-256-GCM. `bound_to`: who asks for what; a cursor opens with the same words or not at all."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, position: str, *, bound_to: str) -> str:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return _text(nonce + self._cipher.encrypt(nonce, position.encode(), bound_to.encode()))

    def open(self, cursor: str, *, bound_to: str) -> str:
        """Raise InvalidInput, the same for a forged, damaged and foreign one."""
        try:
            sealed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
            if _text(sealed) != cursor:  # a second spelling of the same bytes
                raise ValueError(cursor)
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to.encode()).decode()
        except (InvalidTag, ValueError):
            raise InvalidInput(
                "This is no cursor of this list: pass `next` of the previous page and leave the other parameters as they were.",
                field="after",
            ) from None


@dataclass(frozen=True, slots=True)
class PageCursor:
    position: str | None  #: list what follows it; None begins the list
    _seal: CursorSeal
    _bound_to: str

    def next(self, position: str | None) -> str | None:
        """The cursor that goes on after this position; None, at the end of the list, stays None."""
        return None if position is None else self._seal.seal(position, bound_to=self._bound_to)


async def _cursor(request: Request, after: After = None) -> PageCursor:
    seal: CursorSeal = request.app.state.services.cursors
    bound_to = _bound_to(request)
    return PageCursor(None if after is None else seal.open(after, bound_to=bound_to), seal, bound_to)


def _bound_to(request: Request) -> str:
    identity: Identity = request.state.identity
    owner = OPERATOR if identity.tenant is None else f"tenant {identity.tenant.tenant_id}"
    filters = sorted((name, value) for name, value in request.query_params.multi_items() if name not in PAGING)
    return json.dumps([owner, request.scope["route"].operation_id, request.path_params, filters])


def _text(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()


Cursor = Annotated[PageCursor, Depends(_cursor)]
