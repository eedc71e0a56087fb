"""The tables of uploaded files and of the vector stores that they are in.

A store is a collection whose name is the store's id; a file in it is a document of that collection whose external id is the
file's. So what is found, counted, charged and deleted is documents, as everywhere.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlmodel import Field

from config.database import TenantOwned

#: States of a file in a store. The last two are left to be finished by whoever comes by.
BROUGHT, REFUSED, CANCELLED, WAITING, REMOVING = "brought", "refused", "cancelled", "waiting", "removing"


class StoredFile(TenantOwned, table=True):
    """An uploaded content. It is its own owner in the blob store: documents made of it have copies."""

    __tablename__ = "files"
    __table_args__ = (sa.Index("ix_files_blob", "blob"), sa.Index("ix_files_expires_at", "expires_at"))

    id: str = Field(primary_key=True)
    name: str
    purpose: str
    bytes: int = Field(sa_type=sa.BigInteger)
    blob: str
    created_at: int = Field(sa_type=sa.BigInteger)
    expires_at: int | None = Field(default=None, sa_type=sa.BigInteger)
    deleted_at: int | None = Field(default=None, sa_type=sa.BigInteger, index=True)  #: its content follows


class VectorStore(TenantOwned, table=True):
    __tablename__ = "vector_stores"

    id: str = Field(primary_key=True)  #: also the name of its collection
    collection_id: str = Field(foreign_key="collections.id", unique=True)
    name: str
    description: str | None = None
    notes: dict[str, str] = Field(default_factory=dict, sa_type=sa.JSON)  #: what the API calls metadata
    expires_days: int | None = None  #: after it was last active
    last_active_at: int = Field(sa_type=sa.BigInteger)
    created_at: int = Field(sa_type=sa.BigInteger)
    cleared_at: int | None = Field(default=None, sa_type=sa.BigInteger)  #: when an expired one had no document any more
    deleted_at: int | None = Field(default=None, sa_type=sa.BigInteger, index=True)  #: its documents and rows follow


class StoreFile(TenantOwned, table=True):
    """That a file is in a store, and what was asked for it there."""

    __tablename__ = "vector_store_files"

    collection_id: str = Field(primary_key=True, foreign_key="collections.id")
    file_id: str = Field(primary_key=True, index=True)
    state: str = Field(default=WAITING, index=True)
    revision: int = 0  #: rises with every change: who brings it marks what he has read, and nothing newer
    attributes: dict[str, Any] = Field(default_factory=dict, sa_type=sa.JSON)
    labels: list[str] = Field(default_factory=list, sa_type=sa.JSON)
    chunking: dict[str, Any] = Field(sa_type=sa.JSON)  #: as it really is cut
    error_code: str | None = None
    error_detail: str | None = None
    created_at: int = Field(sa_type=sa.BigInteger)
    changed_at: int = Field(sa_type=sa.BigInteger)


class FileBatch(TenantOwned, table=True):
    """Files that were put into a store by one request."""

    __tablename__ = "file_batches"

    id: str = Field(primary_key=True)
    collection_id: str = Field(foreign_key="collections.id", index=True)
    file_ids: list[str] = Field(sa_type=sa.JSON)
    created_at: int = Field(sa_type=sa.BigInteger)
    cancelled_at: int | None = Field(default=None, sa_type=sa.BigInteger)
