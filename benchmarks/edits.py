"""A seeded history of edits, and what of each version they touched: what a service could not avoid embedding anew."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.corpus import Writer
from rag.splitting.chunking import MARKDOWN, PLAIN, Cut, Piece

SENTENCES = (1, 8)  # of a paragraph: 10 to 180 tokens
PARAGRAPHS_UNDER_A_HEADING = (2, 8)
BLOCK = "\n\n"


@dataclass(frozen=True)
class Touched:
    """Where this round's edits lie in the new text: spans of what was put in, and points where something was taken out."""

    inserted: list[tuple[int, int]]
    deleted: list[int]
    headed: list[tuple[int, int]] = field(default_factory=list)  #: sections whose heading was changed

    def embedded_tokens(self, pieces: Sequence[Piece], counts: Sequence[int]) -> int:
        """Of the chunks that overlap an edit in what is embedded: those that `tokens` counts, and those whose path of headings,
        which is embedded before their text, holds a changed one.
        """
        counted = zip(pieces, counts, strict=True)
        return sum(count for piece, count in counted if self._overlaps(piece) or self._is_headed(piece))

    def tokens(self, pieces: Sequence[Piece], counts: Sequence[int]) -> int:
        """Of the chunks that overlap an edit: those whose span shares a character with text that was inserted, replaced or
        moved here, or a heading that was, and the one chunk that contains the point of a deletion: where the text that stood
        behind it now begins, so the chunk in front counts only if an edit lies in it. A chunk counts once, whatever touched it.
        Chunks that only lie under a changed heading do not count, although their embedded text has changed.
        """
        return sum(count for piece, count in zip(pieces, counts, strict=True) if self._overlaps(piece))

    def _overlaps(self, piece: Piece) -> bool:
        inserted = any(start < piece.end and piece.start < end for start, end in self.inserted)
        return inserted or any(piece.start <= point < piece.end for point in self.deleted)

    def _is_headed(self, piece: Piece) -> bool:
        return any(start <= piece.start < end for start, end in self.headed)


@dataclass
class _Sentence:
    text: str
    is_new: bool = False
    behind_a_deletion: bool = False


@dataclass
class _Block:
    """A paragraph, or a heading, which is one sentence."""

    sentences: list[_Sentence]
    is_heading: bool = False

    @property
    def level(self) -> int:
        """Of a heading, from 1; of a paragraph, none."""
        return self.sentences[0].text.index(" ") if self.is_heading else 0


@dataclass
class EditedDocument:
    """A document that is edited in rounds; `markdown` decides whether it has headings."""

    writer: Writer
    random: random.Random
    markdown: bool
    headings_change: bool = True
    blocks: list[_Block] = field(default_factory=list)

    @classmethod
    def written(cls, writer: Writer, seed: int, *, markdown: bool, paragraphs: int) -> EditedDocument:
        document = cls(writer, random.Random(seed), markdown)
        until_heading = 0
        for _ in range(paragraphs):
            if markdown and until_heading == 0:
                document.blocks.append(document._heading(1 if not document.blocks else document.random.choice([2, 2, 3, 3, 3])))
                until_heading = document.random.randint(*PARAGRAPHS_UNDER_A_HEADING)
            document.blocks.append(document._paragraph())
            until_heading -= 1
        return document

    @property
    def cut(self) -> Cut:
        return MARKDOWN if self.markdown else PLAIN

    def edit(self, edits: int) -> None:
        """Some of the kinds of edit, each at a random place."""
        for sentence in (sentence for block in self.blocks for sentence in block.sentences):
            sentence.is_new = sentence.behind_a_deletion = False
        for _ in range(edits):
            self.random.choice(self._kinds())()

    def rendered(self) -> tuple[str, Touched]:
        parts: list[str] = []
        touched, at, starts = Touched([], []), 0, list[int]()
        for number, block in enumerate(self.blocks):
            starts.append(at + len(BLOCK) if number else at)
            for place, sentence in enumerate(block.sentences):
                between = " " if place else BLOCK if number else ""
                at += len(between)
                if sentence.behind_a_deletion:
                    touched.deleted.append(at)
                if sentence.is_new:
                    touched.inserted.append((at, at + len(sentence.text)))
                parts += [between, sentence.text]
                at += len(sentence.text)
        touched.headed.extend(self._headed([*starts, at]))
        return "".join(parts), touched

    def _headed(self, starts: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Each changed heading with what is beneath it, up to the next one that is no deeper."""
        for number, block in enumerate(self.blocks):
            if block.is_heading and block.sentences[0].is_new:
                behind = range(number + 1, len(self.blocks))
                yield starts[number], starts[next((n for n in behind if 0 < self.blocks[n].level <= block.level), -1)]

    def _kinds(self) -> list[Callable[[], None]]:
        kinds = [
            self._insert_sentence,
            self._delete_sentence,
            self._replace_sentence,
            self._insert_paragraph,
            self._delete_paragraph,
            self._move_paragraph,
        ]
        return [*kinds, self._change_heading] if self.markdown and self.headings_change else kinds

    def _insert_sentence(self) -> None:
        sentences = self._some_paragraph().sentences
        sentences.insert(self.random.randint(0, len(sentences)), self._sentence())

    def _delete_sentence(self) -> None:
        block = self._some_paragraph()
        if len(block.sentences) == 1:
            self._delete_paragraph()
            return
        place = self.random.randrange(len(block.sentences))
        block.sentences.pop(place)
        if place < len(block.sentences):
            block.sentences[place].behind_a_deletion = True
        else:
            self._mark(self._place(block) + 1)

    def _replace_sentence(self) -> None:
        sentences = self._some_paragraph().sentences
        sentences[self.random.randrange(len(sentences))] = self._sentence()

    def _insert_paragraph(self) -> None:
        block = self._paragraph()
        for sentence in block.sentences:
            sentence.is_new = True
        self.blocks.insert(self.random.randint(1, len(self.blocks)), block)

    def _delete_paragraph(self) -> None:
        place = self._place(self._some_paragraph())
        self.blocks.pop(place)
        self._mark(place)

    def _move_paragraph(self) -> None:
        block = self._some_paragraph()
        place = self._place(block)
        self.blocks.pop(place)
        self._mark(place)
        for sentence in block.sentences:
            sentence.is_new = True
        self.blocks.insert(self.random.randint(1, len(self.blocks)), block)

    def _change_heading(self) -> None:
        heading = self.random.choice([block for block in self.blocks if block.is_heading])
        level = heading.sentences[0].text.split(" ")[0]
        heading.sentences[0] = _Sentence(f"{level} {self.writer.phrase(2, 5).capitalize()}", is_new=True)

    def _mark(self, place: int) -> None:
        """Something was taken out in front of this block; at the end, the last sentence lost its neighbour."""
        sentences = self.blocks[place].sentences if place < len(self.blocks) else self.blocks[-1].sentences[-1:]
        sentences[0].behind_a_deletion = True

    def _some_paragraph(self) -> _Block:
        return self.random.choice([block for block in self.blocks if not block.is_heading])

    def _place(self, block: _Block) -> int:
        return next(number for number, each in enumerate(self.blocks) if each is block)

    def _paragraph(self) -> _Block:
        return _Block([_Sentence(self.writer.sentence()) for _ in range(self.random.randint(*SENTENCES))])

    def _sentence(self) -> _Sentence:
        return _Sentence(self.writer.sentence(), is_new=True)

    def _heading(self, level: int) -> _Block:
        return _Block([_Sentence(f"{'#' * level} {self.writer.phrase(2, 5).capitalize()}")], is_heading=True)
