"""The rules of webhooks: which events an endpoint wants, when a delivery is tried again, when an endpoint is given up. Pure."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from config.clock import isoformat
from config.errors import InvalidInput, storable
from tenants.webhooks.tables import WebhookDelivery

MAX_ENDPOINTS = 16  # of a tenant
MAX_GLOBS, MAX_DESCRIPTION_CHARS = 32, 200
MAX_COALESCE_S, MAX_OVERLAP_HOURS = 3600, 168
TEST = "webhook.test"  #: type of what a test sends; it is in no outbox

GLOB = re.compile(r"\*|(?:\*|[a-z_]{1,32})\.(?:\*|[a-z_]{1,32})")

#: Seconds from the end of one try to the next: ten tries within 75 h 35 min, as Standard Webhooks recommends.
SCHEDULE_S = (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
JITTER = 0.1  # so much later at most: what failed together does not come back together
PAUSE_S, MAX_PAUSE_S = 1, 60  # an endpoint that fails is left alone for 1, 2, 4 … 60 s, whatever else waits for it
MAX_ASKED_S = 3_600  # of a pause that a receiver asks for by `Retry-After`
MOST_AHEAD_MS = round(1000 * SCHEDULE_S[-1] * (1 + JITTER))  #: that anything is due; what seems later was set by another clock
GIVE_UP_MS = 5 * 24 * 3600 * 1000  # an endpoint where nothing succeeds for so long is disabled: its events would pile up

BY_REQUEST, GONE, FAILING = "by_request", "gone", "failing"  #: why an endpoint is disabled


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one try. `error` None is success."""

    status: int | None = None
    error: str | None = None
    retry_after_s: float | None = None

    @property
    def gone(self) -> bool:
        return self.status == 410


def wants(globs: Sequence[str], event_type: str) -> bool:
    return any(_matches(glob, event_type) for glob in globs)


def _matches(glob: str, event_type: str) -> bool:
    if glob == "*":
        return True
    noun, _, verb = event_type.partition(".")
    wanted_noun, _, wanted_verb = glob.partition(".")
    return wanted_noun in ("*", noun) and wanted_verb in ("*", verb)


def next_try(attempts: int, now: int, chance: random.Random) -> int | None:
    """When to try again after so many tries, all of which failed; None: never."""
    if attempts >= len(SCHEDULE_S):
        return None
    return now + round(1000 * SCHEDULE_S[attempts] * (1 + JITTER * chance.random()))


def pause_ms(failures: int, asked_s: float | None) -> int:
    """How long an endpoint is left alone after so many failures in a row."""
    own = min(PAUSE_S << min(failures - 1, 16), MAX_PAUSE_S)
    return round(1000 * max(own, min(asked_s or 0, MAX_ASKED_S)))


def is_ahead(moment: int, now: int, most_ms: int) -> bool:
    """Whether a moment that was stored is still to come. One further ahead than any can be set was set before the clock was set
    back: nothing waits that out."""
    return now < moment <= now + most_ms


def gives_up(failures: int, failing_ms: int) -> bool:
    """Whether an endpoint is disabled: two failures with a quiet week between them are no reason."""
    return failing_ms >= GIVE_UP_MS and failures >= len(SCHEDULE_S)


def body_of(delivery: WebhookDelivery) -> bytes:
    """What is sent of an event: the same as `GET /v1/events` shows of it."""
    shown = {"id": delivery.event_id, "type": delivery.type, "subject": delivery.subject, "at": isoformat(delivery.at)}
    return json.dumps({**shown, "data": delivery.data}, ensure_ascii=False, separators=(",", ":")).encode()


def check(events: Sequence[str], description: str, coalesce_seconds: int) -> None:
    """Raise InvalidInput."""
    if not 1 <= len(events) <= MAX_GLOBS:
        raise InvalidInput(f"A webhook names 1 to {MAX_GLOBS} kinds of events.", field="events", limit=MAX_GLOBS)
    if not all(GLOB.fullmatch(glob) for glob in events):
        raise InvalidInput("Events are named as `document.live`, `document.*`, `*.failed` or `*`.", field="events")
    if len(description) > MAX_DESCRIPTION_CHARS or not storable(description):
        raise InvalidInput(
            f"A description has at most {MAX_DESCRIPTION_CHARS} characters.", field="description", limit=MAX_DESCRIPTION_CHARS
        )
    if not 0 <= coalesce_seconds <= MAX_COALESCE_S:
        raise InvalidInput(
            f"Events are gathered for at most {MAX_COALESCE_S} s.", field="coalesce_seconds", limit=MAX_COALESCE_S
        )
