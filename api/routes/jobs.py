"""Jobs: showing, listing, following, cancelling and retrying them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request

from api.cursors import Cursor, Limit
from api.routing import Caller, Services, Tenant, in_thread, require, router, scope
from api.schemas.documents import Page, RetryIn, Text
from api.schemas.jobs import JobOut, JobState, RetriedOut
from api.streams import Check, EventStream
from api.wiring.api import ApiServices
from config.errors import Unauthenticated
from ingestion.jobs.jobs import Wanted
from tenants.context import Scope

routes = router("Jobs")


@routes.get("/v1/jobs", operation_id="list_jobs", summary="List jobs, newest first", **scope(Scope.QUERY))
async def list_jobs(
    services: Services,
    tenant: Tenant,
    cursor: Cursor,
    collection: Text | None = None,
    state: JobState | None = None,
    error: Annotated[Text | None, Query(description="Only jobs that ended with this error code.")] = None,
    dead: Annotated[bool, Query(description="Only failed jobs that nobody retried and nothing newer replaces.")] = False,
    limit: Limit = 20,
) -> Page[JobOut]:
    handle = services.jobs.for_tenant(tenant)
    wanted = Wanted(collection=collection, state=state, error_code=error, dead=dead)
    jobs, following = await in_thread(lambda: handle.list(wanted, after=cursor.position, limit=limit))
    now = services.core.clock()
    return Page(data=[JobOut.of(job, now) for job in jobs], next=cursor.next(following))


@routes.post(
    "/v1/jobs/retry",
    operation_id="retry_jobs",
    summary="Retry dead jobs, oldest first, each as a new job",
    **scope(Scope.INGEST),
)
async def retry_jobs(body: RetryIn, services: Services, tenant: Tenant, request: Request) -> RetriedOut:
    handle = services.jobs.for_tenant(tenant)
    wanted = Wanted(collection=body.collection, error_code=body.error)
    jobs, more = await in_thread(lambda: handle.retry_all(wanted, through=body.through, limit=body.limit))
    request.state.audit = {"jobs": [job.id for job in jobs]}
    now = services.core.clock()
    return RetriedOut(data=[JobOut.of(job, now) for job in jobs], more=more)


@routes.get("/v1/jobs/{job_id}", operation_id="get_job", summary="How far a job is", **scope(Scope.QUERY))
async def get_job(job_id: Text, services: Services, tenant: Tenant) -> JobOut:
    return JobOut.of(await in_thread(services.jobs.for_tenant(tenant).get, job_id), services.core.clock())


@routes.get(
    "/v1/jobs/{job_id}/events",
    operation_id="watch_job",
    summary="Follow a job by server-sent events, from its present state to its end",
    status_code=200,
    response_class=EventStream,
    response_model=None,
    **scope(Scope.QUERY),
)
async def watch_job(job_id: Text, request: Request, services: Services, tenant: Tenant, caller: Caller) -> EventStream:
    handle = services.jobs.for_tenant(tenant)
    await in_thread(handle.get, job_id)
    return EventStream(
        services.streams.follow(
            (tenant.tenant_id, job_id),
            lambda: handle.row(job_id),
            principal=caller.id,
            check=_permission(request, services, job_id),
        )
    )


def _permission(request: Request, services: ApiServices, job_id: str) -> Check:
    """Whether the credential, its scope and its bounds would still let this stream begin."""
    credential = request.headers["authorization"].partition(" ")[2].strip()

    def check() -> float:
        identity = services.identifier.identify(credential, request.state.address)
        require(identity, Scope.QUERY, reads=True)
        if identity.tenant is None:
            raise Unauthenticated("The credential has no tenant any more.")
        services.jobs.for_tenant(identity.tenant).get(job_id)
        return services.identifier.trusted_for()

    return check


@routes.post(
    "/v1/jobs/{job_id}/cancel",
    operation_id="cancel_job",
    summary="Cancel an ingest job; one that has ended stays as it is",
    **scope(Scope.INGEST),
)
async def cancel_job(job_id: Text, services: Services, tenant: Tenant) -> JobOut:
    return JobOut.of(await in_thread(services.jobs.for_tenant(tenant).cancel, job_id), services.core.clock())


@routes.post(
    "/v1/jobs/{job_id}/retry",
    operation_id="retry_job",
    summary="Try a failed or cancelled job again, as a new job; asked twice, the same new job",
    **scope(Scope.INGEST),
)
async def retry_job(job_id: Text, services: Services, tenant: Tenant) -> JobOut:
    return JobOut.of(await in_thread(services.jobs.for_tenant(tenant).retry, job_id), services.core.clock())
