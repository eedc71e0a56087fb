"""Sends webhooks from a worker: a few endpoints at once, each by one thread that holds its lease.

Every worker runs one; the leases keep them apart. What a thread does for an endpoint is bounded in number and time, then
who waited longest goes first; and one tenant's endpoints take at most half of the threads. So a receiver that is slow holds
up itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from config.errors import CarrelError, NotFound
from config.vault import CannotOpen
from ingestion.fetch.poster import Poster
from tenants.context import TenantContext
from tenants.webhooks.endpoints import Webhooks
from tenants.webhooks.outbox import Due, Ready, SendLease, WebhookOutbox
from tenants.webhooks.rules import Outcome, body_of

log = logging.getLogger(__name__)

SLICE, SLICE_S = 20, 10.0  # deliveries of an endpoint before others have a turn, and seconds after which none is begun
LOOK_EVERY_S = 1.0
LOOK_AT = 200  # endpoints that are asked for at once: more than a tenant has, so that one whose share is used hides nobody

#: The context in which the worker acts for a tenant, by its id and for whom. Raises NotFound.
ContextOf = Callable[[str, str], TenantContext]


class WebhookSender:
    def __init__(
        self, outbox: WebhookOutbox, webhooks: Webhooks, poster: Poster, context_of: ContextOf, *, concurrency: int
    ) -> None:
        """`concurrency` endpoints at once; 0 sends nothing."""
        self.outbox, self._webhooks, self._poster, self._context_of = outbox, webhooks, poster, context_of
        self._concurrency, self._share = concurrency, max(1, concurrency // 2)
        self._pool = ThreadPoolExecutor(max(1, concurrency), "webhooks")
        self._running: dict[Future[None], Ready] = {}
        self._stopping, self._ring = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        if self._concurrency:
            self._thread.start()

    def close(self, patience_s: float = 1.0) -> None:
        """No try is begun any more; one under way is given a moment. What is cut off is sent again by whoever comes next."""
        self._stopping.set()
        self._ring.set()
        if self._thread.is_alive():
            self._thread.join(patience_s)
        self._pool.shutdown(wait=False, cancel_futures=True)
        wait([*self._running], patience_s)

    def run_once(self) -> None:
        """Do what can be done now, and wait for it: what a start and a little patience come to."""
        while self._begin():
            wait([*self._running])

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._begin()
            except Exception:
                log.exception("webhooks could not be looked for; it is tried again")
            self._ring.wait(LOOK_EVERY_S)
            self._ring.clear()

    def _begin(self) -> int:
        """Give the free threads endpoints that wait; how many."""
        for future in [future for future in self._running if future.done()]:
            del self._running[future]
        begun, shares = 0, Counter(each.tenant_id for each in self._running.values())
        if len(self._running) >= self._concurrency:
            return 0
        for ready in self.outbox.ready(LOOK_AT):
            if len(self._running) >= self._concurrency:
                break
            if shares[ready.tenant_id] >= self._share:
                continue
            try:
                context = self._context_of(ready.tenant_id, ready.endpoint_id)
            except NotFound:  # deleted a moment ago: it must not keep the others waiting
                continue
            lease = self.outbox.claim(context, ready.endpoint_id)
            if lease is not None:
                self._running[self._pool.submit(self._serve, lease)] = ready
                shares[ready.tenant_id] += 1
                begun += 1
        return begun

    def _serve(self, lease: SendLease) -> None:
        try:
            placed, sent = self.outbox.place(lease), 0
            until = time.monotonic() + SLICE_S
            while sent < SLICE and time.monotonic() < until and not self._stopping.is_set():
                due = self.outbox.next(lease)
                if due is None:
                    break
                self.outbox.record(lease, due.delivery, self._try(lease, due))
                sent += 1
            self.outbox.release(lease, idle=not placed and not sent)
            self._ring.set()  # there may be more
        except Exception:  # its lease runs out, and somebody tries again
            log.exception("webhooks of an endpoint could not be sent", extra={"webhook": lease.endpoint_id})

    def _try(self, lease: SendLease, due: Due) -> Outcome:
        body = body_of(due.delivery)
        webhooks = self._webhooks.for_tenant(lease.context)
        try:
            signed = webhooks.signed(lease.endpoint_id, message_id=due.delivery.event_id, body=body)
            answer = self._poster.post(due.url, body, signed)
        except CannotOpen:  # a failure like others, so that one day it is given up and its events are let go
            log.exception("the secret of a webhook cannot be opened", extra={"webhook": lease.endpoint_id})
            return Outcome(error="The service cannot open the webhook's secret.")
        except CarrelError as error:
            return Outcome(error=error.detail)
        if 200 <= answer.status < 300:
            return Outcome(answer.status)
        return Outcome(answer.status, f"The receiver answered {answer.status}.", answer.retry_after_s)
