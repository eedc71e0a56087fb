"""The first step of an ingest job: a content becomes text, and the text chunks in SQL. Knows no vectors and no budget."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.errors import DocumentParked, UnreadableDocument
from ingestion.blobs import BlobStore
from ingestion.conversations import transcripts
from ingestion.intake import duplicates
from ingestion.intake.submission import MAX_TITLE_CHARS
from ingestion.jobs.beats import Beats
from ingestion.jobs.fair_gate import FairGate, Places
from ingestion.jobs.leases import Lease, Work, work
from ingestion.pipeline.chunk_rows import ChunkRow, chunk_row, claim_slots, payload_digest, place_row
from ingestion.readers.base import Parsed
from ingestion.sandbox import ParserDied, ParserTimedOut, Sandbox
from rag.corpus import Chunk, Collection, Document, DocumentVersion, VersionChunk
from rag.profiles import Chunking
from rag.sketch import Signature, sketch
from rag.splitting.chunkers import Chunkers
from rag.splitting.chunking import ChunkIdentity, Page, Piece

log = logging.getLogger(__name__)

MAX_PARSER_DEATHS = 2
MAX_SPLIT_S = 120.0
MAX_READ_STARTS = 10  # of one document, without an end
ROWS = 500  # in one statement
#: Documents that are read at once: of these the whole text is in memory, of the others one batch of chunks. Twice as many
#: where several tenants bring some.
READERS = 4
_NO_SYNC = {"synchronize_session": False}
#: Made once: building a statement costs more than SQLite takes for it.
_FORGET = sa.delete(VersionChunk).where(col(VersionChunk.version_id) == sa.bindparam("version"))
_KNOWN = select(col(Chunk.id)).where(col(Chunk.id).in_(sa.bindparam("ids", expanding=True)))


@dataclass(frozen=True, slots=True)
class Preview:
    """What a content would become; `texts` are those that would be embedded, with their tokens and ids of their chunks."""

    chars: int
    pages: int
    texts: list[str]
    counts: list[int]
    ids: list[str]


class Reading:
    """`count_tokens`: as the embedding model counts them."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        blobs: BlobStore,
        sandbox: Sandbox,
        chunkers: Chunkers,
        count_tokens: Callable[[Sequence[str]], list[int]],
        *,
        max_chunks: int,
        beats: Beats | None = None,
    ) -> None:
        self._database, self._clock, self._blobs, self._sandbox = database, clock, blobs, sandbox
        self._beats = beats or Beats(database, clock)
        self._chunkers, self._count_tokens, self._max_chunks = chunkers, count_tokens, max_chunks
        self._readers = FairGate(Places(READERS))

    def read(self, lease: Lease) -> int:
        """Return how many chunks there are; 0 if the version has ended already. What was read before is not read again."""
        with self._database.read(lease.context) as session:
            found = work(session, lease)
        version = found.version
        if version.state != "queued":
            return 0  # run again after its end: nothing is left to do
        if found.job.stage == "embedding":
            return found.job.chunks_total
        if version.read_starts > MAX_READ_STARTS:
            raise DocumentParked(f"Reading the document was begun {MAX_READ_STARTS} times and never ended.")
        with self._readers.place(lease.context.tenant_id):
            return self._read(lease, version)

    def _read(self, lease: Lease, version: DocumentVersion) -> int:
        said: Sequence[transcripts.Said] | None = None
        if version.media_type == transcripts.MEDIA_TYPE:
            parsed, said = transcripts.read(self._blobs.get(version.content_blob))
        else:
            parsed = self._parse(lease, version)
        title = _title(version, parsed)
        signature = sketch(parsed.text)
        original, outcome = self._compare(lease, version, signature)
        pieces = [] if outcome else self._split(version, parsed, said)
        text_blob = self._blobs.put(version.id, parsed.text.encode())

        def ended(session: Session, found: Work) -> None:
            found.version.text_blob, found.version.chars = text_blob, len(parsed.text)
            found.version.title, found.version.pages = title, len(parsed.pages)
            found.version.flags = [{"code": code, "detail": detail} for code, detail in parsed.warnings]
            found.version.read_starts = 0
            found.job.stage, found.job.pages, found.job.embedding_at = "embedding", len(parsed.pages), self._clock()
            session.add(found.version)
            if original is not None:
                duplicates.note(session, self._clock, found, original, outcome)
            if outcome is None and signature is not None:
                duplicates.keep_sketch(session, found.version, lease.collection_id, signature)
            claim_slots(session, found.version, lease.collection_id)

        self._write_chunks(lease, version, pieces, ended)
        return len(pieces)

    def _compare(
        self, lease: Lease, version: DocumentVersion, signature: Signature | None
    ) -> tuple[duplicates.Original | None, str | None]:
        """The document that this one nearly repeats, and what the collection makes of that instead of embedding it."""
        if signature is None:
            return None, None
        with self._database.read(lease.context) as session:
            collection = session.get_one(Collection, lease.collection_id)
            original = duplicates.find(session, version, collection, signature)
            document = session.get_one(Document, lease.document_id)
            return original, duplicates.outcome_of(collection.near_duplicates, original, document)

    def preview(self, version: DocumentVersion, collection_id: str, path: Path) -> Preview:
        """What `read` would make of the content at `path`; nothing is kept, and a parser's death counts for nobody."""
        parsed = self._parse_twice(path, version.media_type)
        pieces = self._split(version, parsed)
        texts = [piece.embedded for piece in pieces]
        identity = ChunkIdentity(version.tenant_id, collection_id, version.document_id, payload_digest(version))
        return Preview(len(parsed.text), len(parsed.pages), texts, self._counts(pieces), identity.ids(pieces))

    def _parse_twice(self, path: Path, media_type: str) -> Parsed:
        for last in (False, True):
            try:
                return self._sandbox.read(path, media_type)
            except ParserDied as error:
                if last or isinstance(error, ParserTimedOut):
                    raise UnreadableDocument(error.detail) from error
        raise AssertionError("the loop returns or raises")

    def close(self) -> None:
        self._sandbox.close()

    def _parse(self, lease: Lease, version: DocumentVersion) -> Parsed:
        def note(pages: int) -> None:
            self._beats.pages(lease, pages)

        while True:
            try:
                return self._sandbox.read(self._blobs.path(version.content_blob), version.media_type, note)
            except ParserDied as error:
                deaths = self._count_death(lease)
                log.warning("parser died", extra={"version": version.id, "deaths": deaths, "reason": error.detail})
                if deaths >= MAX_PARSER_DEATHS or isinstance(error, ParserTimedOut):
                    raise DocumentParked(error.detail) from error

    def _count_death(self, lease: Lease) -> int:
        with self._database.write(lease.context) as session:
            version = work(session, lease).version
            version.parser_deaths += 1
            session.add(version)
            return version.parser_deaths

    def _turns(self, chunking: Chunking, said: Sequence[transcripts.Said]) -> Iterator[Piece]:
        split = functools.partial(self._chunkers.split, chunking, markdown=False, title="")
        return transcripts.cut(said, split, lambda text: self._count_tokens([text])[0] <= chunking.chunk_tokens)

    def _split(self, version: DocumentVersion, parsed: Parsed, said: Sequence[transcripts.Said] | None = None) -> list[Piece]:
        title = _embedded_title(version, parsed)
        chunking = Chunking(**version.chunking)
        pages = [Page(number, start) for number, start in enumerate(parsed.pages, 1)]
        pieces, deadline = [], time.monotonic() + MAX_SPLIT_S
        split = functools.partial(self._chunkers.split, chunking, parsed.text, title=title, pages=pages)
        found = split(markdown=parsed.markdown, outline=parsed.outline) if said is None else self._turns(chunking, said)
        for piece in found:
            pieces.append(piece)
            if len(pieces) > self._max_chunks:
                raise UnreadableDocument(f"The document has more than {self._max_chunks} chunks; split it.")
            if time.monotonic() > deadline:
                raise UnreadableDocument(f"Splitting the document took longer than {MAX_SPLIT_S:g} s; split it.")
        return pieces

    def _counts(self, pieces: Sequence[Piece]) -> list[int]:
        """In pages: what a tokenizer says of a text is a hundred times as large (250 MB of 2 MB without a blank)."""
        pages = (pieces[at : at + ROWS] for at in range(0, len(pieces), ROWS))
        return [count for page in pages for count in self._count_tokens([piece.embedded for piece in page])]

    def _write_chunks(
        self, lease: Lease, version: DocumentVersion, pieces: Sequence[Piece], ended: Callable[[Session, Work], None]
    ) -> None:
        """In pages, each a transaction with nothing but statements in it: on SQLite everybody else's writes wait for one.

        `ended` belongs to the last of them.
        """
        counts = self._counts(pieces)
        identity = ChunkIdentity(lease.context.tenant_id, lease.collection_id, lease.document_id, payload_digest(version))
        rows = [ChunkRow(*row) for row in zip(identity.ids(pieces), pieces, counts, strict=True)]
        starts = range(0, max(1, len(rows)), ROWS)
        for at in starts:
            with self._database.write(lease.context) as session:
                found = work(session, lease)
                if at == 0:
                    _forget_places(session, version.id)
                    found.job.chunks_total, found.job.tokens_total = len(rows), sum(counts)
                _add_rows(session, version, rows[at : at + ROWS])
                if at == starts[-1]:
                    ended(session, found)
                session.add(found.job)


def _title(version: DocumentVersion, parsed: Parsed) -> str:
    """As it was given, or the content's own, or the last part of its source's name."""
    return (version.title or parsed.title or _name(version))[:MAX_TITLE_CHARS]


def _embedded_title(version: DocumentVersion, parsed: Parsed) -> str:
    """Not the name: the same content under another one has the same vectors, and costs nothing."""
    title = _title(version, parsed)
    return "" if title == _name(version)[:MAX_TITLE_CHARS] else title


def _name(version: DocumentVersion) -> str:
    return (version.source or "").rstrip("/").rpartition("/")[2]


def _forget_places(session: Session, version_id: str) -> None:
    """Of a reading that was cut off."""
    session.execute(_FORGET, {"version": version_id}, execution_options=_NO_SYNC)


def _add_rows(session: Session, version: DocumentVersion, page: Sequence[ChunkRow]) -> None:
    known = {*session.scalars(_KNOWN, {"ids": [row.id for row in page]})}
    if fresh := [chunk_row(version, row) for row in page if row.id not in known]:
        session.execute(sa.insert(Chunk), fresh)
    if page:
        session.execute(sa.insert(VersionChunk), [place_row(version, row) for row in page])
