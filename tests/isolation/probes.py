"""Whether two answers tell the same, what an answer gives away, and random calls that name what is somebody else's."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.isolation.declarations import OPERATIONS, Operation, pool_of
from tests.isolation.doors import REQUEST_ID, Answer
from tests.isolation.world import SHAPE, Member, Values, World, filled

PROBED = "<probed>"
_NEW_ID = re.compile(r"\b[a-z]{2,6}[_-][0-9a-hjkmnp-tv-z]{26}\b")
_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")
_SECRET = re.compile(r"\bwhsec_[A-Za-z0-9+/=]{44}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z|(?<=\"at\": )\d{13}|(?<=_at\":)\d{10}\b")
_VECTOR = re.compile(r'(?<="embedding":)"[A-Za-z0-9+/=]+"')
_CURSOR = re.compile(r'(?<="next":")[\w-]{40,}(?=")')  # sealed with another nonce each time
_LENGTH = re.compile(r"(?<=\"tokens\":)\d+")
#: What no error tells: statements, places in the code or on the disk, classes.
_INSIDE = re.compile(
    r"SELECT |INSERT |UPDATE |DELETE FROM|Traceback|sqlite|sqlalchemy|\.py\b|/tmp/|carrel\.db|Error\(|object at 0x", re.I
)

#: Places that every call has, or that somebody may hope for.
EVERYWHERE: Mapping[str, str] = {
    "header.x-request-id": "{}",
    "header.idempotency-key": "{}",
    "header.x-tenant-id": "{}",
    "header.last-event-id": "{}",
    "header.authorization": f"Bearer carrel_{{}}_{'x' * 43}",
    "header.cookie": "tenant={}",
    "query.tenant": "{}",
    "query.tenant_id": "{}",
    "query.after": "{}",
    "query.cursor": "{}",
    "body.tenant_id": "{}",
    "body.id": "{}",
}
READERS = (
    *("full key", "full token", "query key", "ingest key", "manage key"),
    *("query token", "ingest token", "manage token", "key of other collections", "key of other labels", "user"),
)


def sibling(value: str, chance: random.Random) -> str:
    """A value of the same shape that nobody has. Ids keep their time: both stand at the same place of a sorted list."""
    while True:
        end = "".join(chance.choice("0123456789") if c.isdigit() else _letter(c, chance) for c in value[-SHAPE:])
        if value[:-SHAPE] + end != value:
            return value[:-SHAPE] + end


def _letter(character: str, chance: random.Random) -> str:
    if not character.isalpha():
        return character
    return chance.choice("ABCDEF" if character.isupper() else "abcdef")


def told(answer: Answer, *probed: str) -> tuple[Any, ...]:
    """What the answer says, without what was sent, and without what differs between two good calls."""
    body, headers = answer.body, json.dumps(answer.headers)
    for value in (dict(answer.headers)["x-request-id"], *probed):
        quoted = json.dumps(value)[1:-1]  # an etag has quotation marks, which errors that name it escape
        body, headers = body.replace(quoted, PROBED).replace(value, PROBED), headers.replace(value, PROBED)
    if answer.status < 300:
        body = _CURSOR.sub(lambda cursor: f"<cursor of {len(cursor[0])}>", _TOKEN.sub("<token>", body))
        body = _TIME.sub("<time>", _SECRET.sub("<secret>", _NEW_ID.sub("<id>", _calm(body))))
        headers = _NEW_ID.sub("<id>", re.sub(r'\["content-length", "\d+"\]', "", headers))
    return answer.status, headers, body, answer.read


def _calm(body: str) -> str:
    """A query's answer, or what is found of memories, without its timings, scores and order: another question has others. And
    turns without their lengths."""
    if '"jsonrpc"' in body or '"records"' in body:
        return _calm_of_agents(json.loads(body))
    if '"cosine"' in body:
        return json.dumps(sorted(json.dumps(hit["memory"]) for hit in json.loads(body)["data"]))
    if '"seq":' in body:
        body = _LENGTH.sub("0", body)
    if '"timings_ms"' not in body:
        return _VECTOR.sub("<vector>", body)  # another text has another one
    answer = json.loads(body)
    del answer["timings_ms"]
    answer.pop("explanation", None)  # ranks, scores and the compiled filter are the question's own
    if "citations" in answer:  # in another order the text has other tokens
        del answer["text"], answer["tokens"], answer["usage"]["context_tokens"]
        del answer["messages"], answer["message_tokens"]
    for kind in ("passages", "citations", "groups", "turns", "recaps", "memories"):
        for item in answer.get(kind) or ():
            for name in ("score", "relevance", "boost", "number", "context_start", "context_end"):
                item.pop(name, None)
        answer[kind] = sorted(json.dumps(item) for item in answer.get(kind) or ())
    return json.dumps(answer)


def _calm_of_agents(answer: dict[str, Any]) -> str:
    """The same of a tool's answer, and of records."""
    found = answer.get("result", {}).pop("structuredContent", None) or answer
    answer.get("result", {}).pop("content", None)  # the same once more
    for name in ("text", "tokens"):
        found.pop(name, None) if "citations" in found else None
    for kind in ("results", "citations", "records", "memories"):
        items = [{key: item[key] for key in item if key not in ("score", "number")} for item in found.get(kind) or ()]
        found[kind] = sorted(json.dumps(item, sort_keys=True) for item in items)
    return json.dumps([answer, found], sort_keys=True)


def given_away(answer: Answer, marks: list[str], *sent: str) -> list[str]:
    """Marks of others in the answer, besides what the caller sent himself, and what errors must not tell."""
    text = answer.body + json.dumps(answer.headers)
    for value in sorted(sent, key=len, reverse=True):
        text = text.replace(json.dumps(value)[1:-1], PROBED).replace(value, PROBED)  # errors that name it escape its quotes
    found = [mark for mark in marks if mark in text]
    if answer.status >= 400:
        found += _INSIDE.findall(text)
    return found


def texts(values: Any) -> list[str]:
    """Every string of a call."""
    if isinstance(values, str):
        return [values] if values else []
    items = values.values() if isinstance(values, dict) else values if isinstance(values, list) else ()
    return [text for item in items for text in texts(item)]


@dataclass(frozen=True, slots=True)
class Probe:
    """One call of a reader that names things of another tenant, and its twin that names what nobody has."""

    number: int
    operation: Operation
    reader: str
    victim: int  #: number of the tenant; the reader is always of the first
    places: tuple[tuple[str, str], ...]  #: place and form
    foreign: tuple[str, ...]
    missing: tuple[str, ...]

    def values(self, world: World, named: tuple[str, ...]) -> Values:
        good = world.good(self.operation, world.members[0])
        return filled(good, {place: form.format(value) for (place, form), value in zip(self.places, named, strict=True)})


def probes(world: World, count: int, seed: int) -> Iterator[Probe]:
    chance = random.Random(seed)
    for number in range(count):
        operation = chance.choice(OPERATIONS)
        victim = chance.choice((1, 2))
        available = [(place, "{}") for place in operation.takes] * 3 + [*EVERYWHERE.items()]
        places = tuple(dict(chance.sample(available, chance.choice((1, 1, 2)))).items())
        places = tuple(item for item in places if _fits(item[0], operation))
        foreign = tuple(_value(chance, world.members[victim], operation.takes.get(place)) for place, _ in places)
        missing = tuple(sibling(value, chance) for value in foreign)
        yield Probe(number, operation, chance.choice(READERS), victim, places, foreign, missing)


def _fits(place: str, operation: Operation) -> bool:
    """A call has a form, a line or a JSON body, never two of them."""
    return not (place.startswith("body.") and operation.parts.keys() & {"form", "line"})


def _value(chance: random.Random, victim: Member, kind: str | None) -> str:
    """Mostly of the kind that belongs there, else of any."""
    if kind is not None and chance.random() < 0.7 and (fitting := victim.pool(pool_of(kind))):
        return chance.choice(fitting)
    return chance.choice([*victim.own.values()])


def judge(world: World, probe: Probe) -> list[str]:
    """Everything that the probe found wrong."""
    reader, *others = world.members
    marks = world.marks(*others)
    answers, wrong = [], []
    for named in (probe.foreign, probe.missing):
        values = probe.values(world, named)
        answer = world.send(probe.operation, values, reader.credentials[probe.reader])
        answers.append(answer)
        sent = [REQUEST_ID, *named, *texts(values)]
        if found := given_away(answer, marks, *sent):
            wrong.append(f"gives away {found}")
        if answer.status >= 500:
            wrong.append(f"fails with {answer.status}")
        if answer.wrote and answer.status < 300:
            wrong += world.changed()
        if answer.wrote:  # a refusal too: the path that it names is on record, and its tenant may read that
            world.rewind()
    if told(answers[0], *probe.foreign) != told(answers[1], *probe.missing):
        wrong.append(f"foreign and missing differ: {answers[0]} {answers[1]}")
    if answers[0].statements != answers[1].statements:
        wrong.append(f"statements differ: {answers[0].statements} {answers[1].statements}")
    return wrong
