"""Recall of turns on judged conversations: each is said again as one session, and asked about right after its last turn.

The corpus has a `time` beside each text, which begins with the speaker's name; what has one time is one sitting.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from api.processes.local import local_service
from benchmarks.corpus import Writer
from benchmarks.harness import BenchmarkError, percentile, shown
from benchmarks.report import Figures, Report
from benchmarks.workload import SERVICE, tokenizer_of
from carrel_client import Carrel
from carrel_client.recall import Recalled
from rag.evaluation.metrics import score
from rag.evaluation.questions import Dataset, Judged, read_dataset

TOP_K = 10
BATCH = 100
LIVE_TURNS = 20  # appended one after the other, each until it is found by its meaning
WARM_UP, LARGE_ASKED = 20, 200
MOST_S = 600.0
MAX_NAME = 60  # characters: a longer beginning is no name
TIMES = ("%I:%M %p on %d %B, %Y", "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%d")


@dataclass(frozen=True, slots=True)
class Said:
    id: str
    speaker: str | None
    content: str
    said_at: str

    def turn(self, number: int) -> dict[str, Any]:
        named = {} if self.speaker is None else {"speaker": self.speaker}
        role = ("user", "assistant")[number % 2]
        return {"role": role, "content": self.content, "said_at": self.said_at, "idempotency_key": self.id, **named}


@dataclass(frozen=True, slots=True)
class Asked:
    found: Recalled
    outside_ms: float  #: all that the client waited for but the model


def run(folder: Path, runtime: str, large: int) -> Report:
    dataset = read_dataset(folder)
    conversations = read_conversations(folder)
    with tempfile.TemporaryDirectory(prefix="carrel-memory-") as data:
        with local_service(Path(data), **SERVICE, embedding_runtime=runtime) as service, service.tenant("memory") as client:
            sessions = {group: say(client, group, said) for group, said in conversations.items()}
            asked = [
                ask(client, sessions[question.group], question.text, asked_at=conversations[question.group][-1].said_at)
                for question in shown(dataset.questions, "asking", len(dataset.questions))
            ]
            figures = _figures(dataset, conversations, [one.found for one in asked])
            figures |= {f"recall_p{rank}_ms": percentile([one.outside_ms for one in asked], rank) for rank in (50, 10)}
            figures["vector_p50_s"] = percentile([_until_found(client, f"note {n}") for n in range(LIVE_TURNS)], 50)
            if large:
                figures |= _large(client, large, runtime)
    sizes = {"questions": len(dataset.questions), "turns": sum(map(len, conversations.values()))}
    return Report("memory", figures | sizes)


def read_conversations(folder: Path) -> dict[str, list[Said]]:
    """By group, in the order of the file."""
    found: dict[str, list[Said]] = defaultdict(list)
    with (folder / "corpus.jsonl").open(encoding="utf-8") as file:
        for line in map(json.loads, file):
            name, _, content = line["text"].partition(": ")
            speaker = name if content and len(name) <= MAX_NAME else None
            said_at = _moment(line["time"]).isoformat()
            found[line["group"]].append(Said(line["id"], speaker, content if speaker else line["text"], said_at))
    return dict(found)


def _moment(text: str) -> datetime:
    for form in TIMES:
        try:
            return datetime.strptime(text.strip(), form).replace(tzinfo=UTC)
        except ValueError:
            continue
    raise BenchmarkError(f"The time {text!r} is written in none of the known ways.")


def say(client: Carrel, subject: str, said: Sequence[Said]) -> str:
    """One session with all turns, when each has its vector; its id."""
    session = client.sessions.create(subject=subject).id
    _append(client, session, said)
    _wait(client, session)
    return session


def _append(client: Carrel, session_id: str, said: Sequence[Said]) -> None:
    for first in range(0, len(said), BATCH):
        client.sessions.append(session_id, [each.turn(n) for n, each in enumerate(said[first : first + BATCH])])


def _wait(client: Carrel, session_id: str) -> None:
    deadline = time.monotonic() + MOST_S
    while client.sessions.recall(session_id, "anything", top_k=1, mode="lexical").waiting:
        if time.monotonic() > deadline:
            raise BenchmarkError(f"After {MOST_S:.0f} s there are turns without vectors.")
        time.sleep(0.01)


def ask(client: Carrel, session_id: str, text: str, **wishes: Any) -> Asked:
    began = time.perf_counter()
    found = client.sessions.recall(session_id, text, top_k=TOP_K, **wishes)
    wall = (time.perf_counter() - began) * 1000
    if found.degraded:
        raise BenchmarkError(f"{text!r} was answered without {', '.join(found.degraded)}.")
    return Asked(found, wall - found.timings_ms["model"])


def _figures(dataset: Dataset, conversations: Mapping[str, Sequence[Said]], answers: Sequence[Recalled]) -> Figures:
    rankings = {
        question.id: [conversations[question.group][turn.seq - 1].id for turn in found.turns]
        for question, found in zip(dataset.questions, answers, strict=True)
    }
    whole = _recall(dataset.questions, rankings)
    figures: Figures = {"recall5": whole["recall5"], "recall10": whole["recall10"]}
    for category, questions in sorted(_by_category(dataset.questions)):
        figures[f"recall10_cat{category}"] = _recall(questions, rankings)["recall10"]
    return figures


def _by_category(questions: Sequence[Judged]) -> Iterator[tuple[str, list[Judged]]]:
    for category in {question.category for question in questions} - {""}:
        yield category, [question for question in questions if question.category == category]


def _recall(questions: Sequence[Judged], rankings: Mapping[str, Sequence[str]]) -> Mapping[str, float]:
    return score({each.id: rankings[each.id] for each in questions}, {each.id: each.relevant for each in questions})


def _until_found(client: Carrel, content: str) -> float:
    """Seconds from before a turn is sent until it has its vector."""
    session = client.sessions.create(subject="live")
    began = time.perf_counter()
    client.sessions.say(session.id, "user", content)
    _wait(client, session.id)
    return time.perf_counter() - began


def _large(client: Carrel, turns: int, runtime: str) -> Figures:
    """Of a session of so many made-up turns: the client's wait outside the model, warm, and the first one, cold."""
    writer = Writer(1, tokenizer_of(runtime))
    texts, questions = writer.questions(turns), writer.questions(1 + WARM_UP + LARGE_ASKED)
    now = datetime.now(UTC).isoformat()
    said = [Said(f"turn-{n}", ("Ann", "Ben")[n % 2], text, now) for n, text in enumerate(texts)]
    session = client.sessions.create(subject="large").id
    _append(client, session, said)
    cold = ask(client, session, questions[0]).outside_ms
    _wait(client, session)
    asked = [ask(client, session, question).outside_ms for question in questions[1:]][WARM_UP:]
    times = {f"large_p{rank}_ms": percentile(asked, rank) for rank in (50, 99, 10)}
    return {"large_turns": turns, "large_cold_ms": cold, **times}
