"""How what was said, pinned, summed up or remembered stands in a context: between delimiters that no text can forge.

<turn seq="12" role="user" speaker="Ann" said_at="2026-11-21T10:00Z">
How long may I keep a book?
</turn>
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from rag.packing.rendering import attribute, escaped

USER, ASSISTANT = "user", "assistant"


@dataclass(frozen=True, slots=True)
class Said:
    """A turn as it is shown."""

    session: str  #: its id
    seq: int
    role: str
    text: str
    said_at: int  #: Unix milliseconds
    speaker: str | None = None
    id: str = ""  #: of the turn


@dataclass(frozen=True, slots=True)
class Pin:
    """Stands in every context: a text of the request, or a turn that was pinned in its session."""

    text: str
    turn: Said | None = None


@dataclass(frozen=True, slots=True)
class Recap:
    """What turns `first` to `last` came to."""

    first: int
    last: int
    text: str
    method: str = "extractive"  #: or the name of the language model that wrote it


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that is remembered of the subject."""

    id: str
    text: str
    since: int | None = None  #: Unix milliseconds: from when it holds


def turn_element(said: Said, here: str = "") -> str:
    """`here`: the session whose context it is; of others their session is named."""
    return _element("turn", _provenance(said, here), said.text)


def pin_element(pin: Pin, here: str = "") -> str:
    return _element("pinned", {} if pin.turn is None else _provenance(pin.turn, here), pin.text)


def recap_element(recap: Recap) -> str:
    return _element("recap", {"turns": f"{recap.first}-{recap.last}"}, recap.text)


def fact_element(fact: Fact) -> str:
    return _element("memory", {"id": fact.id, "since": "" if fact.since is None else _minute(fact.since)}, fact.text)


def asked_element(message: str) -> str:
    """What the user says now: not a turn of the session yet."""
    return _element("turn", {"role": USER}, message)


def message_of(said: Said) -> tuple[str, str]:
    """Role and content. Only users and assistants have a role that every model's interface takes: what a tool or the system
    said is shown by the user's, as the element that says who said it."""
    if said.role in (USER, ASSISTANT):
        named = f"{said.speaker}: {said.text}" if said.speaker and said.role == USER else said.text
        return said.role, escaped(named)
    return USER, turn_element(said, said.session)


def _provenance(said: Said, here: str) -> dict[str, str]:
    return {
        "session": "" if said.session == here else said.session,
        "seq": str(said.seq),
        "role": said.role,
        "speaker": said.speaker or "",
        "said_at": _minute(said.said_at),
    }


def _element(tag: str, given: Mapping[str, str], text: str) -> str:
    shown = "".join(f' {name}="{attribute(value)}"' for name, value in given.items() if value)
    return f"<{tag}{shown}>\n{escaped(text)}\n</{tag}>"


def _minute(moment_ms: int) -> str:
    """In UTC: whole seconds cost tokens and tell a model nothing."""
    return (_EPOCH + dt.timedelta(milliseconds=moment_ms)).strftime("%Y-%m-%dT%H:%MZ")


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
