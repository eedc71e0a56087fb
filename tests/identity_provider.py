"""An identity provider on 127.0.0.1: it publishes keys by HTTP, signs what a test says, and counts who asks."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.sites import Site, page, site

AUDIENCE = "https://carrel.example"


@dataclass(frozen=True)
class Pair:
    kid: str | None
    algorithm: str
    private: Any

    def jwk(self, **more: Any) -> dict[str, Any]:
        kinds: dict[str, Any] = {"R": RSAAlgorithm, "P": RSAAlgorithm, "E": ECAlgorithm}
        kind = OKPAlgorithm if self.algorithm == "EdDSA" else kinds[self.algorithm[0]]
        named = {} if self.kid is None else {"kid": self.kid}
        return {**kind.to_jwk(self.private.public_key(), as_dict=True), "use": "sig", "alg": self.algorithm, **named, **more}


@cache
def rsa_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """Made once a process: it takes tenths of a second."""
    return rsa.generate_private_key(65537, bits)


def pair(kid: str | None = "one", algorithm: str = "RS256", number: int = 0) -> Pair:
    made: dict[str, Callable[[], Any]] = {
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
    }
    return Pair(kid, algorithm, made.get(algorithm, lambda: rsa_key(number))())


@dataclass
class Provider:
    signer: Pair
    site: Site
    keys: list[dict[str, Any]] = field(default_factory=list)
    document: dict[str, Any] = field(default_factory=dict)  #: of discovery, over what is right
    answers: Callable[[str], bytes | None] = lambda _path: None  #: instead of what is right

    @property
    def issuer(self) -> str:
        return self.site.url("")

    @property
    def asked(self) -> list[str]:
        return [line.split()[1] for line in self.site.requests]

    def claims(self, **more: Any) -> dict[str, Any]:
        now = int(time.time())
        return {"iss": self.issuer, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 300, **more}

    def token(self, signer: Pair | None = None, /, **more: Any) -> str:
        """`more`: claims; None leaves one out."""
        claims = {name: value for name, value in self.claims(**more).items() if value is not None}
        return self.sign(claims, signer or self.signer)

    def sign(self, claims: dict[str, Any], signer: Pair, **headers: Any) -> str:
        named = {} if signer.kid is None else {"kid": signer.kid}
        # By the signature's layer, which minds no claims.
        payload = json.dumps(claims).encode()
        return jwt.PyJWS().encode(payload, signer.private, signer.algorithm, headers={**named, **headers})

    def answer(self, line: str, connection: socket.socket) -> None:
        path = line.split()[1]
        right = {
            "/keys": {"keys": self.keys},
            "/.well-known/openid-configuration": {
                "issuer": self.issuer,
                "jwks_uri": self.site.url("/keys"),
                **self.document,
            },
        }
        body = json.dumps(right[path]).encode()
        connection.sendall(self.answers(path) or page(body, "application/json"))


@contextmanager
def identity_provider(signer: Pair | None = None) -> Iterator[Provider]:
    first = signer or pair()
    with site(lambda line, connection: provider.answer(line, connection)) as running:
        provider = Provider(first, running, [first.jwk()])
        yield provider


def segments(token: str) -> list[bytes]:
    return [base64.urlsafe_b64decode(part + "==") for part in token.split(".")]


def joined(*parts: bytes) -> str:
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
