"""Public keys of the operator's identity provider: kept in memory, fetched again when they are old or a token names another.

One caller fetches at a time and nobody waits for him who has a key that will do. While the provider does not answer, keys go
on being used until they are too old; then nobody of his users is let in.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jwt import PyJWK
from jwt.exceptions import PyJWTError

from config.errors import CarrelError, Unavailable

log = logging.getLogger(__name__)

AGAIN_S = 30.0  #: between two fetches, whatever kids are named: strangers can ask for any
MAX_KEYS, MAX_KID_CHARS = 100, 200
MIN_RSA_BITS = 2048
#: What a key must be for an algorithm. A private key's members are not among those that are read.
_PUBLIC = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_CURVES = {"ES256": ("P-256",), "ES384": ("P-384",), "ES512": ("P-521",), "EdDSA": ("Ed25519", "Ed448")}


@dataclass(frozen=True, slots=True)
class _Named:
    """A key, for one algorithm: it verifies with no other."""

    kid: str | None
    algorithm: str
    key: PyJWK


class SigningKeys:
    """`fetch` gets the provider's JWK set or raises CarrelError. Keys are fetched again at the age of `fresh_s`, and used until
    that of `stale_s`."""

    def __init__(
        self,
        fetch: Callable[[], bytes],
        algorithms: Sequence[str],
        *,
        fresh_s: float,
        stale_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch, self._algorithms, self._clock = fetch, tuple(algorithms), clock
        self._fresh_s, self._stale_s = fresh_s, max(fresh_s, stale_s)
        self._keys: tuple[_Named, ...] = ()
        self._fetched_at: float | None = None
        self._again_at = 0.0
        self._fetching = threading.Lock()

    def find(self, algorithm: object, kid: str | None, *, ask: bool) -> PyJWK | None:
        """The one key that a token means; without a kid there must be one only that fits. `ask`: the provider, if need be.

        Raise Unavailable if there are no keys to compare with and the provider gives none."""
        found = self._find(algorithm, kid)
        if not ask or algorithm not in self._algorithms or (found is not None and self._age() < self._fresh_s):
            return found
        if self._fetching.acquire(blocking=False):
            try:
                if self._clock() >= self._again_at:
                    self._refresh()
            finally:
                self._fetching.release()
            found = self._find(algorithm, kid)
        elif found is None:
            raise Unavailable("The identity provider's keys are being fetched.", retry_after_s=1)
        if found is None and self._age() >= self._stale_s:
            wait_s = max(1.0, self._again_at - self._clock())
            raise Unavailable("The identity provider's keys cannot be fetched.", retry_after_s=wait_s)
        return found

    def _age(self) -> float:
        return float("inf") if self._fetched_at is None else self._clock() - self._fetched_at

    def _find(self, algorithm: object, kid: str | None) -> PyJWK | None:
        if self._age() >= self._stale_s:
            return None
        fitting = [one.key for one in self._keys if one.algorithm == algorithm and kid in (None, one.kid)]
        return fitting[0] if len(fitting) == 1 else None

    def _refresh(self) -> None:
        began = self._clock()
        try:
            listed = _listed(self._fetch())
        except CarrelError as error:
            log.warning("the identity provider's keys were not fetched", extra={"reason": error.detail})
        else:
            self._keys = tuple(named for jwk in listed for named in self._named(jwk))
            self._fetched_at = began
            if not self._keys:
                log.warning("the identity provider has no key that can be used", extra={"listed": len(listed)})
        self._again_at = self._clock() + AGAIN_S

    def _named(self, jwk: object) -> list[_Named]:
        """The key for each algorithm that it may be used with; none of what is no public key for signatures."""
        if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig":
            return []
        kid, members = jwk.get("kid"), _members(jwk)
        if members is None or not (kid is None or (isinstance(kid, str) and len(kid) <= MAX_KID_CHARS)):
            return []
        suited = [name for name in self._algorithms if jwk.get("alg", name) == name and _suits(members, name)]
        return [_Named(kid, name, key) for name in suited if (key := _read(members, name)) is not None]


def _listed(document: bytes) -> list[object]:
    try:
        keys = json.loads(document)["keys"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise Unavailable("The identity provider's answer is no JWK set.") from error
    if not isinstance(keys, list) or len(keys) > MAX_KEYS:
        raise Unavailable(f"The identity provider's answer is no JWK set of up to {MAX_KEYS} keys.")
    return keys


def _members(jwk: Mapping[str, object]) -> dict[str, Any] | None:
    kind = jwk.get("kty")
    if not isinstance(kind, str) or kind not in _PUBLIC:
        return None
    members = {name: jwk.get(name) for name in _PUBLIC[kind]}
    return {"kty": kind, **members} if all(isinstance(value, str) for value in members.values()) else None


def _suits(members: Mapping[str, str], algorithm: str) -> bool:
    if algorithm[:2] in ("RS", "PS"):
        return members["kty"] == "RSA"
    return members.get("crv") in _CURVES[algorithm] and members["kty"] == ("OKP" if algorithm == "EdDSA" else "EC")


def _read(members: dict[str, Any], algorithm: str) -> PyJWK | None:
    try:
        key = PyJWK(members, algorithm)
    except (PyJWTError, ValueError):
        return None
    return key if members["kty"] != "RSA" or key.key.key_size >= MIN_RSA_BITS else None
