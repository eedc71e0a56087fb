"""Secrets at rest: envelope encryption under a master key, and keys derived from it. Knows nothing of what is sealed.

Each secret has a data key of its own (AES-256-GCM), which is wrapped by a key derived from the master key. So changing the
master key means wrapping data keys anew, and a leaked data key opens one secret.

    sealed = 1 version | 4 master key's id | 12 + 48 wrapped data key | 12 nonce | ciphertext and tag     (bytes)
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

VERSION = b"\x01"
KEY_BYTES, NONCE_BYTES, TAG_BYTES, KEY_ID_BYTES = 32, 12, 16, 4
_WRAPPED = NONCE_BYTES + KEY_BYTES + TAG_BYTES
_HEAD = 1 + KEY_ID_BYTES + _WRAPPED


class CannotOpen(ValueError):
    """Sealed under another master key, for another purpose, or damaged."""


class Vault:
    """`keys`: master keys of 32 bytes. The first seals; the others, of former times, still open."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"a master key has {KEY_BYTES} bytes")
        self._master, self._keys = keys[0], tuple(keys)
        self._wrapping = {_key_id(key): AESGCM(_derive(key, "wrap")) for key in keys}

    @property
    def key_id(self) -> str:
        """Names today's master key without telling anything of it: equal on machines that share it."""
        return _key_id(self._master).hex()

    def derive(self, purpose: str) -> bytes:
        """A key of 32 bytes for one purpose, the same in every process that has the master key."""
        return _derive(self._master, f"purpose {purpose}")

    def derive_all(self, purpose: str) -> list[bytes]:
        """Today's key for the purpose, and after it those of the former master keys."""
        return [_derive(key, f"purpose {purpose}") for key in self._keys]

    def seal(self, plaintext: bytes, *, bound_to: str) -> bytes:
        """`bound_to` says whose and what it is: it is opened with the same words or not at all."""
        data_key, bound = AESGCM.generate_key(8 * KEY_BYTES), bound_to.encode()
        key_id = _key_id(self._master)
        return (
            VERSION + key_id + _encrypt(self._wrapping[key_id], data_key, bound) + _encrypt(AESGCM(data_key), plaintext, bound)
        )

    def open(self, sealed: bytes, *, bound_to: str) -> bytes:
        """Raise CannotOpen."""
        bound = bound_to.encode()
        return _decrypt(AESGCM(self._data_key(sealed, bound)), sealed[_HEAD:], bound)

    def rewrap(self, sealed: bytes, *, bound_to: str) -> bytes:
        """The same secret under today's master key; its content is not touched."""
        bound, key_id = bound_to.encode(), _key_id(self._master)
        wrapped = _encrypt(self._wrapping[key_id], self._data_key(sealed, bound), bound)
        return VERSION + key_id + wrapped + sealed[_HEAD:]

    def is_current(self, sealed: bytes) -> bool:
        return sealed[1 : 1 + KEY_ID_BYTES] == _key_id(self._master)

    def _data_key(self, sealed: bytes, bound: bytes) -> bytes:
        wrapping = self._wrapping.get(sealed[1 : 1 + KEY_ID_BYTES])
        if sealed[:1] != VERSION or wrapping is None:
            raise CannotOpen("it was sealed under a master key that this service does not have")
        return _decrypt(wrapping, sealed[1 + KEY_ID_BYTES : _HEAD], bound)


def _encrypt(cipher: AESGCM, plaintext: bytes, bound: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plaintext, bound)


def _decrypt(cipher: AESGCM, sealed: bytes, bound: bytes) -> bytes:
    try:
        return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound)
    except (InvalidTag, ValueError) as error:
        raise CannotOpen("it is damaged, or was sealed for another purpose") from error


def _key_id(master: bytes) -> bytes:
    return _derive(master, "id")[:KEY_ID_BYTES]


def _derive(master: bytes, info: str) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=f"carrel {info}".encode()).derive(master)
