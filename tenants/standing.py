"""Whether a tenant may be served at all: suspended by the operator, with or without reading, or being deleted."""

from __future__ import annotations

from dataclasses import dataclass

from config.errors import TenantSuspended


@dataclass(frozen=True, slots=True)
class Standing:
    suspended: bool = False
    reads: bool = True  #: whether it may still ask and read

    def require(self, *, reads: bool) -> None:
        """`reads`: whether the request only reads. Raise TenantSuspended."""
        if self.suspended and not (reads and self.reads):
            also = " It may still read." if self.reads else ""
            raise TenantSuspended(f"The operator of this service has suspended the tenant.{also}")


ACTIVE = Standing()


def standing_of(suspended_at: int | None, suspended_reads: bool) -> Standing:
    return ACTIVE if suspended_at is None else Standing(suspended=True, reads=suspended_reads)
