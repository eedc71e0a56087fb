"""How many requests of each class are worked on at once, of one tenant and of all; the others wait a little, and some go.

One class cannot take the places of another, and one tenant not all places of a class. A place that becomes free goes to
the waiting tenant that has fewest. Waiting is bounded by number and time; when it is full, who came last of the lowest
class is let go. A request holds its place until its answer begins: slow readers and long streams hold none.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.middleware.paths import class_of
from api.problems import problem_response
from config.errors import Busy, CarrelError, Shedding
from tenants.identity.authenticator import Identity
from tenants.limits.rates import OperationClass

Name = TypeVar("Name")
SHARE_OF_ONE = 0.75  #: of a class's places that one tenant may have
WAITING_OF_ONE = 0.25  #: of all that wait
RETRY_AFTER_S = 1.0
OPERATOR = "operator"


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    kind: OperationClass
    tenant: str
    most: int | None
    turn: asyncio.Future[None]


class Bulkheads:
    """For one event loop. `places` by class; `room`: how many may wait, of all classes together, and for how long."""

    def __init__(self, places: Mapping[OperationClass, int], *, room: int, wait_s: float) -> None:
        self._places, self._room, self._wait_s = places, room, wait_s
        self._running: Counter[OperationClass] = Counter()
        self._running_of: Counter[tuple[OperationClass, str]] = Counter()
        self._all_of: Counter[str] = Counter()
        self._waiting: dict[OperationClass, dict[str, deque[_Waiting]]] = {kind: {} for kind in OperationClass}
        self._waiting_of: Counter[str] = Counter()

    async def enter(self, kind: OperationClass, tenant: str, most: int | None = None) -> None:
        """`most`: requests of the tenant at once, of all classes. Raise Busy or Shedding; else `leave` once."""
        if self._has_place(kind, tenant, most):
            self._begin(kind, tenant)
            return
        self._make_room(kind, tenant)
        waiting = _Waiting(kind, tenant, most, asyncio.get_running_loop().create_future())
        self._waiting[kind].setdefault(tenant, deque()).append(waiting)
        self._waiting_of[tenant] += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await waiting.turn
        except TimeoutError:
            self._give_up(waiting)
            raise Shedding(f"No place became free in {self._wait_s:g} s.", retry_after_s=RETRY_AFTER_S) from None
        except asyncio.CancelledError:
            self._give_up(waiting)
            raise

    def leave(self, kind: OperationClass, tenant: str) -> None:
        _less(self._running_of, (kind, tenant))
        _less(self._all_of, tenant)
        self._running[kind] -= 1
        for each in OperationClass:
            while (following := self._next(each)) is not None:
                self._forget(following)
                if not following.turn.done():  # it was cancelled a moment ago and does not know yet
                    self._begin(each, following.tenant)
                    following.turn.set_result(None)

    def _has_place(self, kind: OperationClass, tenant: str, most: int | None) -> bool:
        places = self._places[kind]
        return (
            self._running[kind] < places
            and self._running_of[kind, tenant] < max(1, int(places * SHARE_OF_ONE))
            and (most is None or self._all_of[tenant] < most)
        )

    def _begin(self, kind: OperationClass, tenant: str) -> None:
        self._running[kind] += 1
        self._running_of[kind, tenant] += 1
        self._all_of[tenant] += 1

    def _next(self, kind: OperationClass) -> _Waiting | None:
        """Who has waited longest, of the tenant that has fewest places of those that may have one."""
        if self._running[kind] >= self._places[kind]:
            return None
        heads = (queue[0] for queue in self._waiting[kind].values())
        able = [head for head in heads if self._has_place(kind, head.tenant, head.most)]
        return min(able, key=lambda head: self._running_of[kind, head.tenant], default=None)

    def _make_room(self, kind: OperationClass, tenant: str) -> None:
        if self._waiting_of[tenant] >= max(1, int(self._room * WAITING_OF_ONE)):
            raise Busy("So many requests of the tenant wait already.", retry_after_s=RETRY_AFTER_S)
        if self._waiting_of.total() < self._room:
            return
        shed = next(self._lower_than(kind), None)
        refusal = Shedding("So many requests wait already.", retry_after_s=RETRY_AFTER_S)
        if shed is None:
            raise refusal
        self._forget(shed)
        if not shed.turn.done():  # as in `leave`
            shed.turn.set_exception(refusal)

    def _lower_than(self, kind: OperationClass) -> Iterator[_Waiting]:
        """Who waits in a lower class, the lowest first; of the tenant with most the last."""
        for lower in reversed(OperationClass):
            if lower is kind:
                return
            queues = self._waiting[lower].values()
            if queues:
                yield max(queues, key=len)[-1]

    def _give_up(self, waiting: _Waiting) -> None:
        """It stopped waiting; if its turn had just come, it gives its place to another."""
        if waiting.turn.done() and not waiting.turn.cancelled() and waiting.turn.exception() is None:
            self.leave(waiting.kind, waiting.tenant)
        else:
            self._forget(waiting)

    def _forget(self, waiting: _Waiting) -> None:
        queue = self._waiting[waiting.kind].get(waiting.tenant)
        if queue is None or waiting not in queue:
            return
        queue.remove(waiting)
        if not queue:
            del self._waiting[waiting.kind][waiting.tenant]
        _less(self._waiting_of, waiting.tenant)


def _less(counter: Counter[Name], name: Name) -> None:
    """Forgets whoever has none."""
    counter[name] -= 1
    if not counter[name]:
        del counter[name]


class Bulkhead:
    def __init__(self, app: ASGIApp, bulkheads: Bulkheads) -> None:
        self.app, self._bulkheads = app, bulkheads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        identity: Identity | None = scope.get("state", {}).get("identity")
        if identity is None:
            await self.app(scope, receive, send)
            return
        kind, limits = class_of(scope["method"], scope["path"]), scope["state"]["limits"]
        tenant = OPERATOR if identity.tenant is None else identity.tenant.tenant_id
        try:
            await self._bulkheads.enter(kind, tenant, None if limits is None else limits.concurrent_requests)
        except CarrelError as error:
            scope["state"]["throttled"] = True
            await problem_response(error)(scope, receive, send)
            return
        inside = True

        async def send_wrapper(message: Message) -> None:
            nonlocal inside
            if inside:
                inside = False
                self._bulkheads.leave(kind, tenant)
            await send(message)

        try:
            await self.app(scope, receive, send_wrapper)
        finally:
            if inside:
                self._bulkheads.leave(kind, tenant)
