"""Tokens for the end users of an application, made with its key."""

from __future__ import annotations

from fastapi import Request

from api.routing import Services, Tenant, router, scope
from api.schemas.documents import SubjectTokenIn, SubjectTokenOut
from config.clock import isoformat
from tenants.context import Scope
from tenants.identity.tokens import Wish

routes = router("Tokens")


@routes.post(
    "/v1/tokens",
    operation_id="create_token",
    summary="Get a short-lived credential for an end user, within what the key allows",
    status_code=201,
    **scope(Scope.QUERY, retrieval=True),
)
async def create_token(body: SubjectTokenIn, request: Request, services: Services, tenant: Tenant) -> SubjectTokenOut:
    wish = Wish(body.scopes, body.lifetime_seconds, body.subject, body.collections, body.labels, body.read_only)
    token, claims = services.tokens.issue_for(tenant, wish)
    request.state.audit = {"token": claims.id, "subject": tenant.pseudonym(body.subject), "scopes": sorted(claims.scopes)}
    return SubjectTokenOut(
        token=token, expires_at=isoformat(claims.expires_at), scopes=sorted(claims.scopes), subject=body.subject
    )
