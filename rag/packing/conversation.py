"""What of a conversation, and of what is known beside it, goes into a budget of tokens: as one text, and as messages.

What changes least stands first, so that of two contexts of a growing session the longest possible beginning is the same
bytes: pins, what fell out of the window summed up, the window of newest turns, and only then what this question found.
Estimates choose; the whole is counted before it leaves, in both forms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from config.errors import InvalidInput
from rag.packing.composing import Chosen, Composed, Knowledge, Message, compose
from rag.packing.elements import Fact, Pin, Recap, Said, asked_element, fact_element, message_of, recap_element, turn_element
from rag.packing.packing import Count, pack
from rag.packing.rendering import escaped
from rag.packing.shares import Part, Purse
from rag.retrieval.question import Passage

AROUND_MESSAGE, AROUND_MESSAGES = 4, 3  #: tokens of a chat's form: of each message, and of the answer's beginning
#: A window that slid with every turn would change the beginning of every context: it moves in steps of up to this part of it.
STEPS_IN_WINDOW = 4
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Plan:
    budget: int
    shares: Mapping[Part, float]
    newest: int = 2  #: turns that stand in it, or it is refused
    knowledge: Knowledge = "last"  #: where what the question found stands: before what is said last, or before all turns
    message: str | None = None  #: what the user says now


@dataclass(frozen=True, slots=True)
class Material:
    """`recaps(n)`: what turns up to `n` came to, oldest first."""

    session: str
    turns: Sequence[Said] = ()  #: oldest first, without a gap, up to the newest
    first: int = 1  #: `seq` of the first turn that may stand in a window
    pins: Sequence[Pin] = ()
    recaps: Callable[[int], Sequence[Recap]] = lambda _last: ()
    facts: Sequence[Fact] = ()  #: best first, as the other two
    passages: Sequence[Passage] = ()
    recalled: Sequence[Said] = ()


@dataclass(frozen=True, slots=True)
class Conversation:
    composed: Composed
    tokens: int  #: of the text
    message_tokens: int  #: of the messages, with what their form takes
    chosen: Chosen
    left_out: Mapping[Part, int] = field(default_factory=dict)  #: what was there and did not fit
    spent: Mapping[Part, int] = field(default_factory=dict)  #: tokens that each part took when the budget was shared

    @property
    def messages(self) -> tuple[Message, ...]:
        return self.composed.messages


def count_messages(messages: Sequence[Message], count: Count) -> int:
    return sum(count(message.content) + AROUND_MESSAGE for message in messages) + AROUND_MESSAGES


def pack_conversation(material: Material, plan: Plan, count: Count) -> Conversation:
    """Raise InvalidInput if the pins, the newest turns and the message do not fit, saying how much they need."""
    packer = _Packer(material, plan, count)
    least = packer.least()
    chosen = packer.fill(least)
    while (packed := packer.counted(chosen)) is None:
        chosen = packer.less(chosen)
    return packed


class _Packer:
    def __init__(self, material: Material, plan: Plan, count: Count) -> None:
        self.material, self.plan, self.count = material, plan, count
        turns = [*material.turns]
        self._must = turns[len(turns) - min(plan.newest, len(turns)) :]
        self._turns, self._purse = turns, Purse(0, {})

    def least(self) -> Conversation:
        """What stands in it in any case."""
        chosen = Chosen(self.material.session, tuple(self.material.pins), recent=tuple(self._must), message=self.plan.message)
        least = self._measured(chosen)
        needed = max(least.tokens, least.message_tokens)
        if needed > (budget := self.plan.budget):
            raise InvalidInput(_too_small(least, needed, budget), field="max_tokens", limit=needed)
        return least

    def fill(self, least: Conversation) -> Chosen:
        message, musts = self._cost_of_message(), [self._cost_of_turn(said) for said in self._must]
        pins = max(0, max(least.tokens, least.message_tokens) - sum(musts) - message)
        purse = self._purse = Purse(self.plan.budget - pins, self.plan.shares)
        # A longer message does not make the window smaller, unless it must: what the question fills gives way to it.
        recent, spent = self._window(musts, min(purse.allowance("recent"), self.plan.budget - pins - message))
        purse.spend("recent", spent + message)
        last = recent[0].seq - 1 if recent else self._turns[-1].seq if self._turns else self.material.first - 1
        recaps = self._recaps(purse, last)
        facts = self._best(purse, "memories", self.material.facts, fact_element)
        allowance = purse.allowance("documents")
        documents = pack(self.material.passages if allowance else (), allowance, self.count)
        purse.spend("documents", documents.tokens + bool(documents.text))
        shown = {(said.session, said.seq) for said in recent}
        shown |= {(pin.turn.session, pin.turn.seq) for pin in self.material.pins if pin.turn is not None}
        further = [said for said in self.material.recalled if (said.session, said.seq) not in shown]
        recalled = self._best(purse, "recalled", further, lambda said: turn_element(said, self.material.session))
        return replace(least.chosen, recent=recent, recaps=recaps, facts=facts, documents=documents, recalled=recalled)

    def _window(self, musts: Sequence[int], allowance: int) -> tuple[tuple[Said, ...], int]:
        """The newest turns that fit, and what they take. It begins on a step, unless that is the first turn there is."""
        turns, start, costs, spent = self._turns, len(self._turns) - len(self._must), [*musts], sum(musts)
        while start and spent + (cost := self._cost_of_turn(turns[start - 1])) <= allowance:
            start, spent = start - 1, spent + cost
            costs.insert(0, cost)
        if start < len(turns) and turns[start].seq > self.material.first:
            step = 1 << max(0, ((len(turns) - start) // STEPS_IN_WINDOW).bit_length() - 1)
            moved = min(-(turns[start].seq - 1) % step, len(turns) - len(self._must) - start)
            start, spent = start + moved, spent - sum(costs[:moved])
        return tuple(turns[start:]), spent

    def _best(self, purse: Purse, part: Part, found: Sequence[_T], element: Callable[[_T], str]) -> tuple[_T, ...]:
        """As they come; a smaller one may take the place of one that was too large."""
        allowance, spent, chosen = purse.allowance(part), 0, list[_T]()
        for each in found if allowance else ():
            cost = self.count(element(each)) + 1
            if spent + cost <= allowance:
                spent += cost
                chosen.append(each)
        purse.spend(part, spent)
        return tuple(chosen)

    def _recaps(self, purse: Purse, last: int) -> tuple[Recap, ...]:
        """As many as fit, in turn of the newest and of the oldest, which cover most: what is missing is missing between."""
        allowance, spent, chosen = purse.allowance("summary"), 0, list[Recap]()
        recaps = self.material.recaps(last) if allowance else ()
        for recap in _from_both_ends(recaps):
            cost = self.count(recap_element(recap)) + 1
            if spent + cost > allowance:
                break
            spent += cost
            chosen.append(recap)
        purse.spend("summary", spent)
        return tuple(sorted(chosen, key=lambda recap: recap.first))

    def _cost_of_turn(self, said: Said) -> int:
        """Of the dearer of its two forms."""
        element, content = turn_element(said, self.material.session), message_of(said)[1]
        return max(self.count(element) + 1, self.count(content) + AROUND_MESSAGE)

    def _cost_of_message(self) -> int:
        message = self.plan.message
        if message is None:
            return 0
        return max(self.count(asked_element(message)) + 1, self.count(escaped(message)) + AROUND_MESSAGE)

    def counted(self, chosen: Chosen) -> Conversation | None:
        """None if it is over the budget after all: texts can have more tokens together than apart."""
        packed = self._measured(chosen)
        return packed if max(packed.tokens, packed.message_tokens) <= self.plan.budget else None

    def _measured(self, chosen: Chosen) -> Conversation:
        composed = compose(chosen, self.plan.knowledge)
        tokens, of_messages = self.count(composed.text), count_messages(composed.messages, self.count)
        return Conversation(composed, tokens, of_messages, chosen, self._left_out(chosen), self._purse.spent)

    def less(self, chosen: Chosen) -> Chosen:
        """Without the least of it, the last part first; never without what must be in it."""
        if chosen.recalled:
            return replace(chosen, recalled=chosen.recalled[:-1])
        if chosen.documents.text:
            smaller = pack(self.material.passages, max(0, chosen.documents.tokens - 1), self.count)
            return replace(chosen, documents=smaller)
        if chosen.facts:
            return replace(chosen, facts=chosen.facts[:-1])
        if chosen.recaps:
            middle = (len(chosen.recaps) - 1) // 2
            return replace(chosen, recaps=chosen.recaps[:middle] + chosen.recaps[middle + 1 :])
        if len(chosen.recent) == len(self._must):
            raise AssertionError("what must be in it was found to fit")
        return replace(chosen, recent=chosen.recent[1:])

    def _left_out(self, chosen: Chosen) -> dict[Part, int]:
        """Of turns, none: they are in the window or in what it came to."""
        return {
            "memories": len(self.material.facts) - len(chosen.facts),
            "documents": chosen.documents.left_out if chosen.documents.text else len(self.material.passages),
        }


def _from_both_ends(recaps: Sequence[Recap]) -> list[Recap]:
    newest, oldest = recaps[::-1], recaps
    return [pair[place] for pair in zip(newest, oldest, strict=True) for place in (0, 1)][: len(recaps)]


def _too_small(least: Conversation, needed: int, budget: int) -> str:
    what = [f"{len(least.chosen.recent)} newest turns"] if least.chosen.recent else []
    what += [f"{len(least.chosen.pins)} pins"] if least.chosen.pins else []
    what += ["the message"] if least.chosen.message is not None else []
    named = ", ".join(what) or "The form of an empty context"
    return f"{named} need {needed} tokens, {needed - budget} more than `max_tokens` allows."
