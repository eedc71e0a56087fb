"""By which meters something is paid that is asked for in a session: the tenant's, within the session's own budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from api.routing import meter_of
from api.wiring.api import ApiServices
from rag.sessions.spending import SessionMeter
from rag.types import BookedMeter
from tenants.context import TenantContext


@dataclass(frozen=True, slots=True)
class SessionMeters:
    services: ApiServices
    tenant: TenantContext
    session_id: str | None  #: None: the tenant pays alone

    def question(self, collections: Sequence[str] = ()) -> BookedMeter:
        return self._within(meter_of(self.services, self.tenant, collections), self.services.core.ledger.price)

    def llm(self) -> BookedMeter | None:
        """None without a language model."""
        rewriting, price = self.services.rewriting, self.services.core.settings.llm_price
        return None if rewriting is None else self._within(rewriting.meter_of(self.tenant), price)

    def _within(self, meter: BookedMeter, price: int) -> BookedMeter:
        if self.session_id is None:
            return meter
        return SessionMeter(self.services.core.database, self.tenant, self.session_id, meter, price=price)
