"""Texts become vectors, each paid for once: dedupe → single flight → cache → hold → model → settle → cache."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from rag.embedding.cache import CacheStats, VectorCache, as_stored, cache_key
from rag.embedding.flights import Flight, Flights
from rag.embedding.runtime import Embedder, Embedding, Matrix, Note, PartlyEmbedded
from rag.store.base import Vector
from rag.types import Meter, Scope

NONE: Mapping[str, Vector] = MappingProxyType({})
ESTIMATE_PAGE = 500  # vectors in memory at a time: 0.8 MB of 384 dimensions

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Embedded:
    vectors: Matrix  #: shape (len(texts), dimensions)
    charged: int  #: tokens the model read for this call
    cached: int  #: tokens whose vectors were known
    deduplicated: int  #: tokens of texts that occur more than once in the call, or that another call embedded meanwhile
    hits: int = 0  #: texts whose vectors were known; not counted where an earlier run of the same batch paid
    model_s: float = 0.0  #: how long the model worked on it
    resent: int = 0  #: requests that a provider was sent again

    @property
    def tokens(self) -> int:
        return self.charged + self.cached + self.deduplicated


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens of some texts: what embedding them now would charge, and what it would not."""

    to_embed: int
    cached: int
    deduplicated: int

    @property
    def total(self) -> int:
        return self.to_embed + self.cached + self.deduplicated


@dataclass(frozen=True, slots=True)
class _Texts:
    """What one call asks for, each text once."""

    tokens: Mapping[str, int]
    keys: Mapping[str, bytes]
    repeated: int  #: tokens of repetitions

    def sum(self, texts: Sequence[str]) -> int:
        return sum(self.tokens[text] for text in texts)


@dataclass(frozen=True, slots=True)
class _Bought:
    """What the model was called for. `error`: it gave these vectors, and then no more."""

    charged: int = 0
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    embedding: Embedding | None = None
    error: Exception | None = None


#: Pays for the missing texts and has them embedded. `alone`: no other text of the call is embedded by another call.
Buy = Callable[[_Texts, Sequence[str], bool], _Bought]


class EmbeddingService:
    def __init__(self, embedder: Embedder, cache: VectorCache) -> None:
        self.model, self.space = embedder.model, embedder.model.fingerprint.space
        self._cache, self.embedder = cache, embedder
        self._flights = Flights()

    def close(self) -> None:
        self.embedder.close()
        self._cache.close()

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each chunk as it is embedded: with the model's prompt for documents."""
        return self.model.count_tokens(self._prompted(self.model.fingerprint.document_prompt, texts))

    def embed_query(self, scope: Scope, meter: Meter, text: str, *, charge_id: str) -> Embedded:
        return self.embed_queries(scope, meter, [text], charge_id=charge_id)

    def embed_queries(self, scope: Scope, meter: Meter, queries: Sequence[str], *, charge_id: str) -> Embedded:
        """Texts whose tokens are known beforehand: one conditional debit for all, refunded if the model fails."""
        prompted = self._prompted(self.model.fingerprint.query_prompt, queries)
        return self.embed_now(scope, meter, prompted, charge_id=charge_id, urgent=True)

    def embed_kept(self, scope: Scope, meter: Meter, texts: Sequence[str], *, charge_id: str) -> Embedded:
        """Texts that are kept to be found, as chunks are, while somebody waits: paid for and as urgent as queries."""
        prompted = self._prompted(self.model.fingerprint.document_prompt, texts)
        return self.embed_now(scope, meter, prompted, charge_id=charge_id, urgent=True)

    def embed_now(self, scope: Scope, meter: Meter, texts: Sequence[str], *, charge_id: str, urgent: bool = False) -> Embedded:
        """Texts as they are given, whose tokens are known beforehand: one conditional debit for all, which whoever made it
        refunds if the model fails. A call that was free, because another under its id paid, sees to it that this stays paid.
        """

        def buy(known: _Texts, missing: Sequence[str], _alone: bool) -> _Bought:
            if not missing:
                return _Bought()
            tokens = [known.tokens[text] for text in missing]
            pays = meter.debit(charge_id, sum(tokens))
            try:
                embedding = self.embedder.embed(missing, tokens, tenant=scope.tenant_id, urgent=urgent)
            except Exception:
                if pays:
                    meter.refund(charge_id)
                raise
            while not (pays or meter.keep(charge_id)):  # again only if a third was charged in between, and refunded
                pays = meter.debit(charge_id, sum(tokens))
            return _Bought(sum(tokens), _by_text(missing, embedding.vectors), embedding)

        embedded = self._embed(scope, texts, self.model.count_tokens(texts), buy)
        if not embedded.charged:
            meter.saved(embedded.cached, embedded.deduplicated, embedded.hits)
        return embedded

    def embed_batch(
        self,
        scope: Scope,
        meter: Meter,
        texts: Sequence[str],
        *,
        hold_id: str,
        tokens: Sequence[int] | None = None,
        note: Note | None = None,
        urgent: bool = False,
        taken: Mapping[str, Vector] = NONE,
    ) -> Embedded:
        """One batch of a job. `hold_id` is the same whenever the same batch is tried again; `tokens` of each text, if known;
        `note` and `urgent` as an `Embedder` says. `taken`: vectors that these texts have elsewhere; they cost nothing.

        `charged` is what the ledger says, whichever run paid. Savings are not counted here: the caller does that once it has
        kept the vectors.
        """

        def buy(texts: _Texts, missing: Sequence[str], alone: bool) -> _Bought:
            if not missing:  # an earlier run may have paid
                return _Bought(meter.charged(hold_id))
            return self._buy_held(scope, meter, hold_id, texts, missing, note, urgent, alone)

        prompted = self._prompted(self.model.fingerprint.document_prompt, texts)
        counts = self.model.count_tokens(prompted) if tokens is None else tokens
        given = {whole: as_stored(taken[text]) for text, whole in zip(texts, prompted, strict=True) if text in taken}
        return self._embed(scope, prompted, counts, buy, given)

    def _embed(
        self, scope: Scope, texts: Sequence[str], counts: Sequence[int], buy: Buy, given: Mapping[str, Vector] = NONE
    ) -> Embedded:
        tokens = dict(zip(texts, counts, strict=True))
        asked = _Texts(
            tokens, {text: cache_key(scope, self.space, text) for text in tokens}, sum(counts) - sum(tokens.values())
        )
        with self._flights.board(asked.keys.values()) as flight:
            # The cache after boarding: what another call has landed since is in it, and not paid for again.
            mine = [text for text, key in asked.keys.items() if key in flight.lead]
            followed = [text for text, key in asked.keys.items() if key in flight.follow]
            known = self._known(scope, mine) | {text: given[text] for text in mine if text in given}
            missing = [text for text in mine if text not in known]
            bought = buy(asked, missing, not followed)
            self._land(scope, flight, asked, known, bought)
        vectors = {**known, **bought.vectors, **{text: flight.wait(asked.keys[text]) for text in followed}}
        embedding = bought.embedding
        if embedding and embedding.resent:
            log.info("a provider was sent requests again", extra={"requests": embedding.resent, "texts": len(missing)})
        return Embedded(
            vectors=np.stack([vectors[text] for text in texts]),
            charged=bought.charged,
            cached=asked.sum([*known]),
            deduplicated=asked.repeated + asked.sum(followed),
            hits=len(known) if bought.charged == asked.sum(missing) else 0,
            model_s=embedding.seconds if embedding else 0.0,
            resent=embedding.resent if embedding else 0,
        )

    def _known(self, scope: Scope, texts: Sequence[str]) -> dict[str, Vector]:
        found = self._cache.get(scope, self.space, texts)
        return {text: vector for text, vector in zip(texts, found, strict=True) if vector is not None}

    def _land(self, scope: Scope, flight: Flight, asked: _Texts, known: Mapping[str, Vector], bought: _Bought) -> None:
        if bought.vectors:
            self._cache.put(scope, self.space, bought.vectors)
        flight.land({asked.keys[text]: vector for text, vector in {**known, **bought.vectors}.items()})
        if bought.error is not None:
            raise bought.error

    def _buy_held(
        self,
        scope: Scope,
        meter: Meter,
        hold_id: str,
        texts: _Texts,
        missing: Sequence[str],
        note: Note | None,
        urgent: bool,
        alone: bool,
    ) -> _Bought:
        tokens = [texts.tokens[text] for text in missing]
        held = meter.hold(hold_id, sum(tokens), started=True)  # False: an earlier run paid, and died before it kept the vectors
        try:
            embedding = self.embedder.embed(missing, tokens, tenant=scope.tenant_id, note=note, urgent=urgent)
        except PartlyEmbedded as error:
            vectors = _by_text(missing, error.done)
            if held and vectors:
                meter.settle_part(hold_id, _digest(texts.keys[text] for text in vectors), texts.sum([*vectors]))
            return _Bought(vectors=vectors, error=error)
        except Exception:
            if held:
                meter.release(hold_id)
            raise
        if held and alone:
            charged = meter.settle(hold_id, sum(tokens))
        else:
            if held:  # what another call fails to embed is still to be paid for when the batch is tried again
                meter.settle_part(hold_id, _digest(texts.keys[text] for text in missing), sum(tokens))
            charged = meter.charged(hold_id)
        return _Bought(charged, _by_text(missing, embedding.vectors), embedding)

    def estimate(self, scope: Scope, texts: Sequence[str], tokens: Sequence[int]) -> Estimate:
        """What embedding these in batches would charge; `tokens` as `count_tokens` says.

        The model is not asked; the cache is, in pages, for a document's many vectors.
        """
        counts = dict(zip(self._prompted(self.model.fingerprint.document_prompt, texts), tokens, strict=True))
        unique, cached = list(counts), 0
        for at in range(0, len(unique), ESTIMATE_PAGE):
            known = self._known(scope, unique[at : at + ESTIMATE_PAGE])
            cached += sum(counts[text] for text in known)
        total = sum(counts.values())
        return Estimate(total - cached, cached, sum(tokens) - total)

    def cache_keys(self, scope: Scope, texts: Sequence[str]) -> list[bytes]:
        """Names of the vectors of chunks in the cache: from none of them the text follows."""
        return [cache_key(scope, self.space, text) for text in self._prompted(self.model.fingerprint.document_prompt, texts)]

    def forget(self, scope: Scope, keys: Sequence[bytes]) -> None:
        """Erase vectors from the cache. A text that is embedded again is paid for again."""
        self._cache.erase(scope, keys)

    def forget_all(self, scope: Scope) -> None:
        """Erase every vector of the tenant from the cache."""
        self._cache.forget(scope)

    def holdings(self, scope: Scope) -> CacheStats:
        """What the cache holds for a tenant."""
        return self._cache.stats(scope)

    @staticmethod
    def _prompted(prompt: str, texts: Sequence[str]) -> list[str]:
        return [prompt + text for text in texts] if prompt else [*texts]


def _by_text(texts: Sequence[str], vectors: Matrix | Mapping[int, Vector]) -> dict[str, Vector]:
    """Vectors as the cache gives them back: a text has one, whether it was cached or not."""
    found = vectors.items() if isinstance(vectors, Mapping) else enumerate(vectors)
    return {texts[place]: as_stored(vector) for place, vector in found}


def _digest(keys: Iterable[bytes]) -> str:
    """Names a set of texts."""
    return hashlib.blake2b(b"".join(sorted(keys)), digest_size=12).hexdigest()
