"""Finding turns again: of one session, and of all sessions of a subject."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request, Response

from api.entries import Entry, OwnEntry
from api.idempotency import ChargeId
from api.routing import Services, Tenant, in_thread, meter_of, router, scope
from api.schemas.documents import Text
from api.schemas.recall import RecallIn, RecallOut, SubjectRecallIn
from api.session_meters import SessionMeters
from rag.recall.recall import Recalled, RecallQuestion
from rag.traces.conversed import of_recall
from rag.traces.left import Left
from rag.traces.wording import recall_to_json
from tenants.context import Scope

routes = router("Sessions")


@routes.post(
    "/v1/sessions/{session_id}/recall",
    operation_id="recall_session",
    summary="Find the turns of a session that answer a question",
    response_model=RecallOut,
    **scope(Scope.QUERY, retrieval=True),
)
async def recall_session(
    session_id: Text,
    body: RecallIn,
    request: Request,
    services: Services,
    tenant: Tenant,
    charge_id: ChargeId,
    entry: Entry,
) -> Response:
    handle = services.conversations.recall.for_tenant(tenant, SessionMeters(services, tenant, session_id).question())
    question = body.question()

    def trace(found: Recalled) -> str | None:
        return services.traces.tracer.leave(tenant, _left(question, found, session_id=session_id), request=charge_id)

    return await _answer(request, body, entry, lambda: handle.in_session(session_id, question, charge_id=charge_id), trace)


@routes.post(
    "/v1/recall",
    operation_id="recall",
    summary="Find the turns of a subject's sessions that answer a question",
    response_model=RecallOut,
    **scope(Scope.QUERY, retrieval=True),
)
async def recall(
    body: SubjectRecallIn, request: Request, services: Services, tenant: Tenant, charge_id: ChargeId, entry: Entry
) -> Response:
    handle = services.conversations.recall.for_tenant(tenant, meter_of(services, tenant, ()))
    question = body.question(tuple(body.tags))

    def trace(found: Recalled) -> str | None:
        return services.traces.tracer.leave(tenant, _left(question, found, subject=body.subject), request=charge_id)

    return await _answer(request, body, entry, lambda: handle.of_subject(body.subject, question, charge_id=charge_id), trace)


def _left(question: RecallQuestion, found: Recalled, *, session_id: str | None = None, subject: str | None = None) -> Left:
    words = {"recall": recall_to_json(question)}
    conversed = of_recall(question.text, found)
    return Left("recall", subject=subject, session_id=session_id, conversed=conversed, words=words)


async def _answer(
    request: Request, body: RecallIn, entry: OwnEntry, ask: Callable[[], Recalled], trace: Callable[[Recalled], str | None]
) -> Response:
    """Rendered and put on record in the thread."""

    def work() -> tuple[str, int]:
        found = ask()
        rendered = RecallOut.of(found, explain=body.explain, trace_id=trace(found)).model_dump_json()
        entry.write(200, {"turns": [each.turn.id for each in found.turns]})
        return rendered, found.charged

    rendered, request.state.tokens = await in_thread(work)
    return Response(rendered, media_type="application/json")
