"""A tenant's client that goes on whatever dies: brings, replaces, deletes, cancels, retries and asks, and knows what to expect.

Every request is repeated with its own idempotency key until it was answered; what was acknowledged is the truth from then on.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.faults.converged import Truth

DOCUMENTS = 8
PATIENCE_S = 90.0  #: with one request, through all the deaths it meets
REPEATED = (409, 429, 500, 502, 503, 504)  #: and a 422 is final


@dataclass
class Edition:
    text: str
    job_id: str
    cancelled: bool = False


@dataclass
class Owned:
    """A document as its owner knows it, since it was last deleted."""

    id: str
    editions: list[Edition] = field(default_factory=list)

    @property
    def newest(self) -> str | None:
        return next((edition.text for edition in reversed(self.editions) if not edition.cancelled), None)


class TenantLife:
    def __init__(self, tenant: str, key: str, url: str, *, seed: int, words: int) -> None:
        """`words`: pairs of them in a paragraph, one of which is the tenant's name."""
        self.tenant, self._words = tenant, words
        self._random = random.Random(seed)
        self._http = httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=20)
        self._known: dict[str, Owned] = {}
        self._deleted: set[str] = set()
        self._edition = 0
        self.done: dict[str, int] = {}  #: how often it did what

    def live(self, enough: threading.Event) -> None:
        """Go on until it is enough."""
        verbs: list[Callable[[str], None]] = [
            self.bring,
            self.bring,
            self.bring,
            self.ask,
            self.cancel,
            self.retry,
            self.delete,
        ]
        while not enough.is_set():
            verb = self._random.choice(verbs)
            verb(f"doc-{self._random.randrange(DOCUMENTS)}")
            self.done[verb.__name__] = self.done.get(verb.__name__, 0) + 1
        self._http.close()

    @property
    def truth(self) -> Truth:
        live = {name: owned.newest for name, owned in self._known.items()}
        return Truth(self.tenant, live, {name: len(owned.editions) for name, owned in self._known.items()})

    @property
    def deleted(self) -> set[str]:
        """Names whose documents are gone."""
        return self._deleted - self._known.keys()

    def bring(self, name: str) -> None:
        self._edition += 1
        kept, new = f"oak {self.tenant} " * self._words, f"pine{self._edition % 5} {self.tenant} " * self._words
        paragraphs = [f"Shelf {name} board {board}: {kept}" for board in range(3)]
        text = "\n\n".join([*paragraphs, f"Edition {self._edition} of {name}: {new}"]).strip()
        answer = self._until_answered("POST", "/v1/documents", json={"text": text, "external_id": name})
        assert answer.status_code == 202, answer.text
        told = answer.json()
        owned = self._known.setdefault(name, Owned(told["document"]["id"]))
        assert owned.id == told["document"]["id"]
        owned.editions.append(Edition(text, told["job"]["id"]))

    def delete(self, name: str) -> None:
        if owned := self._known.get(name):
            answer = self._until_answered("DELETE", f"/v1/documents/{owned.id}")
            assert answer.status_code in (200, 404), answer.text  # 404: it was carried out, and its answer was lost
            del self._known[name]
            self._deleted.add(name)

    def cancel(self, name: str) -> None:
        if owned := self._known.get(name):
            answer = self._until_answered("POST", f"/v1/jobs/{owned.editions[-1].job_id}/cancel")
            assert answer.status_code == 200, answer.text
            owned.editions[-1].cancelled = answer.json()["state"] == "cancelled"

    def retry(self, name: str) -> None:
        owned = self._known.get(name)
        if owned and owned.editions[-1].cancelled:
            answer = self._until_answered("POST", f"/v1/jobs/{owned.editions[-1].job_id}/retry")
            assert answer.status_code in (200, 201, 202, 422), answer.text  # 422: the content is not kept any more
            if answer.status_code != 422:
                owned.editions[-1] = Edition(owned.editions[-1].text, answer.json()["id"])

    def ask(self, name: str) -> None:
        answer = self._until_answered("POST", "/v1/query", json={"query": f"Shelf {name} oak", "top_k": 20})
        assert answer.status_code == 200, answer.text
        for passage in answer.json()["passages"]:
            assert passage["external_id"] in self._known, "a deleted document was found"
            texts = [edition.text for edition in self._known[passage["external_id"]].editions]
            assert any(passage["text"] in text for text in texts), f"no passage of this tenant's: {passage['text'][:200]}"

    def _until_answered(self, method: str, path: str, **options: Any) -> httpx2.Response:
        headers = {"Idempotency-Key": uuid.UUID(int=self._random.getrandbits(128)).hex} if method == "POST" else {}
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = self._http.request(method, path, headers=headers, **options)
            except httpx2.TransportError:
                answer = None
            if answer is not None and answer.status_code not in REPEATED:
                return answer
            assert time.monotonic() < deadline, f"{method} {path} was not answered: {answer.text if answer else 'silence'}"
            time.sleep(self._random.uniform(0.02, 0.2))
