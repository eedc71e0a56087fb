"""Which refusals each operation can answer with, and their two shapes. The document names these and no others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from api.openai.errors import PATHS, STATUSES, OpenAIError, shaped
from api.problems import MEDIA_TYPE, Problem
from api.routing import RETRIEVAL_KEY, SCOPE_KEY, STREAMED_KEY

#: Why an operation refuses, with the code of an example, by status.
WHY: dict[int, tuple[str, str]] = {
    400: ("Not valid; `param` says where.", "invalid_input"),
    401: ("No valid key.", "unauthenticated"),
    402: ("The budget does not cover this.", "budget_exhausted"),
    403: ("The key lacks the scope or is confined, or the plan has no room.", "forbidden"),
    404: ("No such thing, or not yours: the two are not told apart.", "not_found"),
    409: ("It exists already, has changed, or a request with the same key is still running.", "conflict"),
    412: ("The document is at another version than the request names.", "version_conflict"),
    413: ("Too large.", "too_large"),
    415: ("A kind of content that cannot be read.", "unsupported_media_type"),
    422: ("Not valid; `field` and `limit` say where and why.", "invalid_input"),
    429: ("Too many requests or jobs; `Retry-After` says when to come back.", "rate_limited"),
    502: ("A provider outside refuses what it was asked.", "provider_refused"),
    503: ("A part of the service is not available; `Retry-After` says when to try again.", "unavailable"),
    507: ("The disk has no room for new documents.", "storage_full"),
}
#: What stands in front of every operation: the key, its scope, the size of a body, rates, and whether the service goes.
ALWAYS = frozenset({401, 403, 413, 429, 503})
RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "string", "pattern": "^[0-9]+$"}}}
CHALLENGE = {"WWW-Authenticate": {"description": "`Bearer`.", "schema": {"type": "string", "enum": ["Bearer"]}}}

_ASKING = frozenset(
    {
        *("query", "create_context", "recall", "recall_session", "search_memories", "add_memories", "update_memory"),
        *("replay_trace", "openai_search_vector_store", "openai_create_embeddings", "dify_retrieval"),
    }
)
_BRINGING = frozenset(
    {
        *("create_document", "attach_document", "promote_session", "openai_create_vector_store"),
        *("openai_create_store_file", "openai_create_file_batch"),
    }
)
#: Beyond what follows from an operation's shape, by status.
MORE: Mapping[int, frozenset[str]] = {
    402: _ASKING | _BRINGING | {"append_turns"},
    404: frozenset(
        {
            *("create_document", "list_documents", "list_jobs", "retry_jobs", "query", "create_context", "add_memories"),
            *("replay_traces", "create_question_set", "list_question_sets"),
            *("give_feedback", "list_feedback", "openai_create_vector_store", "openai_create_embeddings"),
            *("dify_retrieval", "create_key", "list_keys"),
            *("search_tenants", "list_any_audit", "export_any_audit"),
        }
    ),
    409: frozenset(
        {
            *("replay_trace", "apply_tuning", "roll_back_tuning", "delete_collection"),
            *("update_tenant", "suspend_tenant", "resume_tenant", "override_limit", "restore_limit", "set_budget"),
        }
    ),
    415: frozenset({"create_document", "attach_document", "create_documents", "openai_create_file", "mcp"}),
    502: _ASKING,
    507: _BRINGING | {"openai_create_file", "retry_job", "retry_jobs"},
}


def described(document: dict[str, Any]) -> None:
    """Give each operation its refusals, and the document their answers and models."""
    components = document["components"]
    components["responses"] = {}
    for path, method, operation in _operations(document):
        own = {status: answer for status, answer in operation["responses"].items() if not _generated(answer)}
        for status in sorted(statuses_of(path, method, operation)):
            name = _component(path, status)
            components["responses"].setdefault(name, _answer(path, status))
            own[str(status)] = {"$ref": f"#/components/responses/{name}"}
        operation["responses"] = dict(sorted(own.items()))
    for model in (Problem, OpenAIError):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        components["schemas"] |= {**schema.pop("$defs", {}), model.__name__: schema}
    for name in ("HTTPValidationError", "ValidationError"):  # the framework's own
        components["schemas"].pop(name, None)
    components["schemas"] = dict(sorted(components["schemas"].items()))


def statuses_of(path: str, method: str, operation: Mapping[str, Any]) -> frozenset[int]:
    if operation[SCOPE_KEY] == "none":
        return frozenset()
    found = set(ALWAYS)
    given = [(item["in"], item["name"]) for item in operation.get("parameters", ())]
    if given or "requestBody" in operation:
        found.add(422)
    if any(where == "path" for where, _ in given):
        found.add(404)
    if ("header", "If-Match") in given:
        found.add(412)
    if method == "post" and not operation.get(RETRIEVAL_KEY) and not operation.get(STREAMED_KEY):
        found.add(409)  # of `Idempotency-Key`
    found |= {status for status, names in MORE.items() if operation["operationId"] in names}
    return frozenset(STATUSES.get(status, status) for status in found) if PATHS.fullmatch(path) else frozenset(found)


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _generated(answer: Mapping[str, Any]) -> bool:
    """Whether the framework put it there, in its own shape."""
    return "HTTPValidationError" in str(answer.get("content"))


def _component(path: str, status: int) -> str:
    return f"{'OpenAI' if PATHS.fullmatch(path) else 'Problem'}{status}"


def _answer(path: str, status: int) -> dict[str, Any]:
    why, code = WHY[status]
    problem = {
        **{"type": f"urn:carrel:problem:{code}", "title": why.partition(";")[0], "status": status, "code": code},
        **{"detail": why, "retryable": status in (429, 503, 507), "request_id": "req_5f1c2a90b7d34e6f8a1b2c3d"},
    }
    for_sdk = PATHS.fullmatch(path) is not None
    media, model = ("application/json", "OpenAIError") if for_sdk else (MEDIA_TYPE, "Problem")
    example = shaped(problem).model_dump() if for_sdk else problem
    schema = {"$ref": f"#/components/schemas/{model}"}
    answer: dict[str, Any] = {"description": why, "content": {media: {"schema": schema, "example": example}}}
    headers = {401: CHALLENGE, 429: RETRY_AFTER, 503: RETRY_AFTER}.get(status)
    return answer | ({"headers": headers} if headers else {})
