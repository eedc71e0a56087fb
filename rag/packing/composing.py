"""What was chosen for a context becomes one text, with the places of all that it shows, and messages for a chat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rag.packing.elements import (
    USER,
    Fact,
    Pin,
    Recap,
    Said,
    asked_element,
    fact_element,
    message_of,
    pin_element,
    recap_element,
    turn_element,
)
from rag.packing.packing import Packed
from rag.packing.rendering import Citation, escaped

Knowledge = Literal["last", "system"]
Shown = Pin | Recap | Said | Fact | None  #: None: passages, or what the user says now
Place = Literal["pinned", "summary", "recent", "memories", "documents", "recalled", "message"]


@dataclass(frozen=True, slots=True)
class Chosen:
    session: str
    pins: tuple[Pin, ...] = ()
    recaps: tuple[Recap, ...] = ()
    recent: tuple[Said, ...] = ()
    facts: tuple[Fact, ...] = ()
    documents: Packed = Packed("", 0, (), 0)  # noqa: RUF009  frozen, as this is
    recalled: tuple[Said, ...] = ()
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Element:
    """Characters `start` to `end` of the text."""

    place: Place
    shown: Shown
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Composed:
    text: str
    messages: tuple[Message, ...]
    elements: tuple[Element, ...]
    citations: tuple[Citation, ...]  #: of passages, in the text


_Piece = tuple[Place, Shown, str]


def compose(chosen: Chosen, knowledge: Knowledge) -> Composed:
    """Equal choices give equal bytes."""
    lasting, found, said, asked = _lasting(chosen), _found(chosen), _said(chosen), _asked(chosen)
    ordered = [*lasting, *said, *found, *asked] if knowledge == "last" else [*lasting, *found, *said, *asked]
    elements, at = list[Element](), 0
    for place, shown, text in ordered:
        elements.append(Element(place, shown, at, at + len(text)))
        at += len(text) + 1
    moved = next((element.start for element in elements if element.place == "documents"), 0)
    return Composed(
        text="\n".join(text for _, _, text in ordered),
        messages=_messages(chosen, _joined(lasting), _joined(found), knowledge),
        elements=tuple(elements),
        citations=tuple(_moved(citation, moved) for citation in chosen.documents.citations),
    )


def _lasting(chosen: Chosen) -> list[_Piece]:
    """The same for many turns."""
    pins: list[_Piece] = [("pinned", pin, pin_element(pin, chosen.session)) for pin in chosen.pins]
    return pins + [("summary", recap, recap_element(recap)) for recap in chosen.recaps]


def _said(chosen: Chosen) -> list[_Piece]:
    return [("recent", said, turn_element(said, chosen.session)) for said in chosen.recent]


def _found(chosen: Chosen) -> list[_Piece]:
    """What another question finds otherwise. Turns in the order in which they were said."""
    facts: list[_Piece] = [("memories", fact, fact_element(fact)) for fact in chosen.facts]
    documents: list[_Piece] = [("documents", None, chosen.documents.text)] if chosen.documents.text else []
    recalled = sorted(chosen.recalled, key=lambda said: (said.said_at, said.session, said.seq))
    return [*facts, *documents, *(("recalled", said, turn_element(said, chosen.session)) for said in recalled)]


def _asked(chosen: Chosen) -> list[_Piece]:
    return [] if chosen.message is None else [("message", None, asked_element(chosen.message))]


def _messages(chosen: Chosen, lasting: str, found: str, knowledge: Knowledge) -> tuple[Message, ...]:
    """A system message with what lasts; the turns; what was found before what is said last, in the user's message."""
    told = [Message(*message_of(said)) for said in chosen.recent]
    if chosen.message is not None:
        told.append(Message(USER, escaped(chosen.message)))
    if knowledge == "system":
        lasting, found = "\n".join(filter(None, (lasting, found))), ""
    if found:
        last = told.pop() if told and told[-1].role == USER else None
        told.append(Message(USER, found) if last is None else replace(last, content=f"{found}\n\n{last.content}"))
    return (*([Message("system", lasting)] if lasting else []), *told)


def _joined(pieces: Sequence[_Piece]) -> str:
    return "\n".join(text for _, _, text in pieces)


def _moved(citation: Citation, by: int) -> Citation:
    return replace(citation, context_start=citation.context_start + by, context_end=citation.context_end + by)
