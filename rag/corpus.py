"""The tables of what is known: spaces, collections, documents, versions, chunks. SQL is the truth; vectors derive from it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from config.database import TenantOwned
from config.profiles import STANDARD

#: Part of every chunk's id: raise it when reading, splitting or the embedded text changes meaning.
PIPELINE_VERSION = 2


class SpaceRow(SQLModel, table=True):
    """One embedding space. Vectors of two spaces are never compared."""

    __tablename__ = "spaces"

    id: str = Field(primary_key=True)
    dimensions: int
    description: dict[str, Any] = Field(sa_type=sa.JSON)  #: what the fingerprint was made of
    created_at: int = Field(sa_type=sa.BigInteger)


class Collection(TenantOwned, table=True):
    __tablename__ = "collections"
    __table_args__ = (
        sa.UniqueConstraint("tenant_id", "name"),
        sa.Index(
            "ix_collections_session_id",
            "session_id",
            sqlite_where=sa.text("session_id IS NOT NULL"),
            postgresql_where=sa.text("session_id IS NOT NULL"),
        ),
    )

    id: str = Field(primary_key=True)
    name: str
    space_id: str = Field(foreign_key="spaces.id")
    #: Where its points are to lie: `shared` or `dedicated`. Where they do, the store knows.
    placement: str = Field(default="shared", index=True)
    placement_chosen: bool = Field(default=False, sa_column_kwargs={"server_default": sa.false()})  #: by an operator
    profile: str = STANDARD  #: by which documents are processed that are brought from now on
    near_duplicates: str = "keep"  #: what becomes of a document that nearly repeats another: keep, link or skip it
    near_threshold: float = 0.9  #: from which similarity on
    semantic_cache: bool = False  #: whether a question may be answered as another one was that is near to it
    semantic_threshold: float = 0.95  #: from which cosine of the two on
    keep_versions_days: int = 0  #: how long versions that were replaced can still be asked for
    versions_kept_since: int | None = Field(default=None, sa_type=sa.BigInteger)  #: none that was replaced since is missing
    #: The active one: its version and parameters. None: it is not tuned.
    tuning: dict[str, Any] | None = Field(default=None, sa_type=sa.JSON)
    #: Kinds of its documents' attributes by key, declared or inferred: see `rag.attributes`.
    attribute_types: dict[str, Any] = Field(default_factory=dict, sa_type=sa.JSON, sa_column_kwargs={"server_default": "{}"})
    #: Of the collection that holds what is attached to a session, and that nothing else leads to: see `rag.attached`.
    session_id: str | None = None
    #: Rises with every visible change; a result computed at another generation is stale.
    generation: int = Field(default=0, sa_type=sa.BigInteger)
    created_at: int = Field(sa_type=sa.BigInteger)


class NumericSlot(TenantOwned, table=True):
    """Which of the engine's few numeric fields holds which numeric attribute of a collection."""

    __tablename__ = "numeric_slots"

    collection_id: str = Field(primary_key=True, foreign_key="collections.id")
    slot: int = Field(primary_key=True)
    key: str
    kind: str = Field(default="number", sa_column_kwargs={"server_default": "number"})  #: or datetime, as milliseconds


class Document(TenantOwned, table=True):
    """A named thing whose content changes by versions. Deleted at once by `deleted_at`, purged later."""

    __tablename__ = "documents"
    __table_args__ = (
        sa.Index(
            "uq_documents_external_id",
            "tenant_id",
            "collection_id",
            "external_id",
            unique=True,
            sqlite_where=sa.text("deleted_at IS NULL"),
            postgresql_where=sa.text("deleted_at IS NULL"),
        ),
    )

    id: str = Field(primary_key=True)
    collection_id: str = Field(foreign_key="collections.id", index=True)
    external_id: str
    live_version_id: str | None = None
    live_number: int = 0  #: the live version's number, 0 before there is one
    last_number: int = 0
    created_at: int = Field(sa_type=sa.BigInteger)
    deleted_at: int | None = Field(default=None, sa_type=sa.BigInteger)
    #: As what it is counted among what the tenant has: `ingestion.counting`.
    counted: bool = Field(default=False, sa_column_kwargs={"server_default": sa.false()})
    counted_bytes: int = Field(default=0, sa_type=sa.BigInteger, sa_column_kwargs={"server_default": "0"})
    counted_chunks: int = Field(default=0, sa_type=sa.BigInteger, sa_column_kwargs={"server_default": "0"})


class DocumentVersion(TenantOwned, table=True):
    """One content of a document with its metadata. States: queued → live → superseded, or failed, cancelled or skipped."""

    __tablename__ = "document_versions"
    __table_args__ = (
        sa.UniqueConstraint("document_id", "number"),
        sa.Index("ix_document_versions_content_blob", "content_blob"),
        sa.Index(
            "ix_document_versions_copied_from",  # of nearly none
            "copied_from",
            sqlite_where=sa.text("copied_from IS NOT NULL"),
            postgresql_where=sa.text("copied_from IS NOT NULL"),
        ),
    )

    id: str = Field(primary_key=True)
    document_id: str = Field(foreign_key="documents.id")
    number: int
    state: str = "queued"
    digest: str  #: of content, type, title, attributes, labels and pipeline: equal digests need no work
    title: str
    source: str | None = None  #: where the content came from, as the user named it
    url: str | None = None  #: where its content is fetched from; until that is done, type, bytes and blob are empty
    media_type: str
    attributes: dict[str, Any] = Field(sa_type=sa.JSON)
    labels: list[str] = Field(sa_type=sa.JSON)
    bytes: int = Field(sa_type=sa.BigInteger)
    content_blob: str
    text_blob: str | None = None
    chars: int = 0
    pages: int = 0
    flags: list[dict[str, str]] = Field(default_factory=list, sa_type=sa.JSON)  #: what reading found, as code and detail
    #: The version or session that it was made of: where its texts are the same, so are their vectors.
    copied_from: str | None = None
    near_document_id: str | None = Field(default=None, index=True)  #: of which it was found to be a near-duplicate
    near_version_id: str | None = None  #: that document's live version then
    near_similarity: float | None = None  #: of the two texts, estimated: 1 is equal
    linked: bool = False  #: whether it has no chunks of its own, and is found through the other
    parser_deaths: int = 0
    read_starts: int = 0  #: since reading last ended
    profile: str = STANDARD  #: under which it was brought
    chunking: dict[str, Any] = Field(sa_type=sa.JSON)  #: the sizes and splitter of that profile then
    created_at: int = Field(sa_type=sa.BigInteger)
    ended_at: int | None = Field(default=None, sa_type=sa.BigInteger)  #: when it failed or was cancelled
    live_from: int | None = Field(default=None, sa_type=sa.BigInteger)  #: None of one that went live before this was noted
    live_until: int | None = Field(default=None, sa_type=sa.BigInteger)  #: when another replaced it


class Chunk(TenantOwned, table=True):
    """A piece of a document that is embedded once, whichever versions contain it. Its id is its point's id."""

    __tablename__ = "chunks"
    __table_args__ = (sa.Index("ix_chunks_tenant_indexed", "tenant_id", "indexed", "id"),)  # counted and paged by repairs

    id: str = Field(primary_key=True)
    document_id: str = Field(foreign_key="documents.id", index=True)
    context: str  #: title and headings that are embedded before the text
    text: str
    tokens: int  #: of context and text, counted by the embedding model
    pipeline_version: int = PIPELINE_VERSION
    indexed: bool = False  #: whether its point is durably in the engine
    #: Its lexical features, packed; None if its point has no lexical vector.
    terms: bytes | None = Field(default=None, sa_type=sa.LargeBinary)


class FormerText(TenantOwned, table=True):
    """The cache's name of a text that former versions had: it is erased from there with the document."""

    __tablename__ = "former_texts"

    document_id: str = Field(primary_key=True)
    key: bytes = Field(primary_key=True)


class VersionChunk(TenantOwned, table=True):
    """Where a chunk lies in a version's text: `text[start:end]` is the chunk's text, in characters."""

    __tablename__ = "version_chunks"
    __table_args__ = (
        sa.Index(
            "ix_version_chunks_parent",  # of most chunks there is none, and then it has no entry
            "version_id",
            "parent_start",
            sqlite_where=sa.text("parent_start IS NOT NULL"),
            postgresql_where=sa.text("parent_start IS NOT NULL"),
        ),
    )

    version_id: str = Field(primary_key=True, foreign_key="document_versions.id")
    ordinal: int = Field(primary_key=True)
    chunk_id: str = Field(foreign_key="chunks.id", index=True)
    start: int
    end: int
    first_page: int | None = None  #: 1-based, for paged formats
    last_page: int | None = None
    headings: list[str] = Field(sa_type=sa.JSON)
    #: Of the passage that is returned in its place, where a profile says so: a run of chunks that share these.
    parent_start: int | None = None
    parent_end: int | None = None
    gap: str | None = None  #: what parts it from the chunk before, in the same passage: white space


class Sketch(TenantOwned, table=True):
    """What of a version's text is compared with others': its MinHash signature."""

    __tablename__ = "sketches"

    version_id: str = Field(primary_key=True, foreign_key="document_versions.id")
    signature: bytes


class SketchBand(TenantOwned, table=True):
    """A part of a signature under which versions with the same part are found."""

    __tablename__ = "sketch_bands"
    __table_args__ = (sa.Index("ix_sketch_bands_lookup", "tenant_id", "collection_id", "hash", "version_id"),)

    tenant_id: str  # the index above begins with it: 20 rows a version need no other
    version_id: str = Field(primary_key=True, foreign_key="sketches.version_id")
    band: int = Field(primary_key=True)
    collection_id: str
    hash: int = Field(sa_type=sa.BigInteger)


class TermCounts(TenantOwned, table=True):
    """In how many live chunks of a collection each feature is: rows that add up, merged as they become many."""

    __tablename__ = "term_counts"

    collection_id: str = Field(primary_key=True, foreign_key="collections.id")
    #: The collection's generation of that change: never given twice, so what was read of a row can be kept.
    number: int = Field(primary_key=True, sa_type=sa.BigInteger)
    counts: bytes = Field(sa_type=sa.LargeBinary)
