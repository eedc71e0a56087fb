"""The handles of files and stores, put together."""

from __future__ import annotations

from dataclasses import dataclass

from ingestion.stores.batches import Batches
from ingestion.stores.files import Files
from ingestion.stores.members import StoreFiles
from ingestion.stores.parts import StoreParts
from ingestion.stores.settling import Settling
from ingestion.stores.stores import Stores


@dataclass(frozen=True, slots=True)
class StoreServices:
    uploads: Files
    stores: Stores
    files: StoreFiles
    batches: Batches

    @classmethod
    def of(cls, parts: StoreParts) -> StoreServices:
        settling = Settling(parts)
        files = StoreFiles(parts, settling)
        return cls(Files(parts, settling), Stores(parts, files, settling), files, Batches(parts, files, settling))
