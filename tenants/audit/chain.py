"""The audit chain as arithmetic: canonical entries, links, signed checkpoints. Knows no database and no clock.

    hash of entry n = SHA-256("carrel audit entry 1\\n" | hash of entry n−1 | canonical entry n)
    hash of entry 0 = SHA-256("carrel audit chain 1\\n" | name of the chain)

A checkpoint says that the entries `first` to `last` lead from one hash to another, and is signed with Ed25519: whoever has the
public key can check it, and only who has the master key can make one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

OPERATOR = "operator"  #: the chain of requests that belong to no tenant
PURPOSE = "audit checkpoints"
#: What of an entry is chained. Its position is not: it follows from the order.
FIELDS = (
    *("id", "tenant_id", "at", "request_id", "principal_kind", "principal_id"),
    *("action", "target", "decision", "status", "detail"),
)


def chain_of(tenant_id: str | None) -> str:
    return OPERATOR if tenant_id is None else tenant_id


def genesis(chain: str) -> bytes:
    return hashlib.sha256(b"carrel audit chain 1\n" + chain.encode()).digest()


def link(before: bytes, entry: Mapping[str, Any]) -> bytes:
    """`entry` has FIELDS and nothing else of interest."""
    return hashlib.sha256(b"carrel audit entry 1\n" + before + _canonical({name: entry.get(name) for name in FIELDS})).digest()


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Hashes, key and signature are hexadecimal. With `first` 0 it is a cut: entries through `last` were deleted by age."""

    chain: str
    first: int
    last: int
    before: str
    head: str
    at: int
    key: str
    signature: str = ""

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Checkpoint:
        """Raise ValueError for what is none."""
        try:
            kinds: dict[str, Any] = {"first": int, "last": int, "at": int}
            return cls(**{name: kinds.get(name, str)(data[name]) for name in cls.__dataclass_fields__})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError("this is no checkpoint") from error

    def told(self) -> dict[str, Any]:
        return asdict(self)

    def is_signed_by(self, trusted: Sequence[str] | frozenset[str]) -> bool:
        """Whether the signature is right and of one of these public keys."""
        if self.key not in trusted:
            return False
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.key)).verify(bytes.fromhex(self.signature), self._signed())
        except (InvalidSignature, ValueError):
            return False
        return True

    def _signed(self) -> bytes:
        return b"carrel audit checkpoint 1\n" + _canonical({**self.told(), "signature": ""})


class CheckpointSigner:
    def __init__(self, seed: bytes) -> None:
        """`seed`: 32 bytes, derived from the master key, so that the key is in no database."""
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = public_key(seed)

    def sign(self, chain: str, *, first: int, last: int, before: bytes, head: bytes, at: int) -> Checkpoint:
        unsigned = Checkpoint(chain, first, last, before.hex(), head.hex(), at, self.public)
        signature = self._key.sign(unsigned._signed()).hex()
        return Checkpoint(**{**unsigned.told(), "signature": signature})


def public_key(seed: bytes) -> str:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw().hex()
