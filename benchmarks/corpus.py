"""Seeded documents and questions: the same seed gives the same characters everywhere, in as many chunks as are asked for.

The words are a company's; frequent ones come often and rare ones seldom, roughly as in running text. Nothing repeats, so
nothing is answered from the embedding cache.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from tokenizers import Tokenizer

from rag.splitting.chunking import Chunker, Sizes

VOCABULARY = (
    "the of and to a in for is on that by with this be are as from at or an not was it which may must will can has all each "
    "one new other when any more after before until under between within during customer account order invoice payment "
    "contract service request answer support product delivery return refund warranty price discount tax budget report team "
    "manager employee office meeting project plan review approval policy rule exception limit notice period month week day "
    "year quarter date time number amount total balance rate share cost expense travel hotel train flight receipt claim form "
    "field signature document page section version record archive backup storage server network cable router switch password "
    "token device laptop phone printer screen battery charger software update release license module database table index "
    "query result error warning message alert queue worker process thread memory disk cache region zone cluster incident "
    "severity outage recovery test sample measure sensor valve pump motor bearing filter pressure temperature voltage current "
    "frequency signal noise threshold calibration maintenance inspection safety helmet glove ladder warehouse pallet label "
    "barcode shipment carrier customs border permit insurance liability damage loss theft audit evidence witness statement "
    "lawyer court settlement appeal patient nurse doctor clinic dose allergy symptom diagnosis treatment library loan reader "
    "book journal shelf catalogue reservation fine membership garden river bridge harbour station platform ticket seat window "
    "opens closes expires begins ends requires allows forbids includes excludes replaces confirms rejects records sends "
    "receives stores deletes checks repairs measures orders ships pays charges returns reports signs reads writes quickly "
    "slowly rarely usually always never twice early late private public internal external annual monthly weekly daily"
)
WORDS = VOCABULARY.split()
_WEIGHTS = list(accumulate(1 / (rank + 3) for rank in range(len(WORDS))))
SENTENCE_WORDS = (4, 16)
QUESTION_WORDS = (6, 12)
#: Two neighbours never fit into one chunk, so a paragraph is a chunk; the mean is about 150 tokens of 212.
LEAST, MOST, FULL = 0.54, 0.86, 0.96


@dataclass(frozen=True)
class Text:
    """A document to bring."""

    name: str
    title: str
    text: str


class Writer:
    """Writes for one tokenizer: what a chunk can hold is counted in its tokens."""

    def __init__(self, seed: int, tokenizer_json: str) -> None:
        self._random = random.Random(seed)
        self._tokenizer = Tokenizer.from_str(tokenizer_json)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._chunk_tokens = Sizes().text_tokens

    def document(self, name: str, chunks: int, *, mark: str = "") -> Text:
        """A document of so many chunks, each of which begins with `mark`."""
        paragraphs = [self._paragraph(mark) for _ in range(chunks)]
        return Text(name, self.phrase(2, 5).capitalize(), "\n\n".join(paragraphs))

    def documents(self, count: int, chunks: int, *, prefix: str) -> list[Text]:
        return [self.document(f"{prefix}-{number}", chunks) for number in range(count)]

    def question(self) -> str:
        return self.phrase(*QUESTION_WORDS) + f" {self._random.randrange(10**6)}?"

    def questions(self, count: int) -> list[str]:
        return [self.question() for _ in range(count)]

    def _paragraph(self, mark: str) -> str:
        sentences = [mark] if mark else []
        tokens = self._count(mark)
        wanted = self._random.uniform(LEAST, MOST) * self._chunk_tokens
        while tokens < wanted:
            sentence = self.sentence()
            more = self._count(sentence) + 1  # the blank before it is a token in some tokenizers
            if tokens + more <= FULL * self._chunk_tokens:
                sentences.append(sentence)
                tokens += more
        return " ".join(sentences)

    def sentence(self) -> str:
        words = self.phrase(*SENTENCE_WORDS)
        if self._random.random() < 0.3:
            words += f" {self._random.randrange(10_000)}"
        return words.capitalize() + "."

    def phrase(self, least: int, most: int) -> str:
        return " ".join(self._random.choices(WORDS, cum_weights=_WEIGHTS, k=self._random.randint(least, most)))

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)


def embedded_texts(documents: Sequence[Text], tokenizer_json: str) -> list[str]:
    """What the model reads of these documents when the service ingests them, in reading order."""
    chunker = Chunker(tokenizer_json)
    pieces = (piece for item in documents for piece in chunker.split(item.text, title=item.title))
    return [piece.embedded for piece in pieces]


def spread(total: int, most: int) -> list[int]:
    """`total` chunks over documents of at most `most`: all full but the last."""
    full, rest = divmod(total, most)
    return [most] * full + ([rest] if rest else [])
