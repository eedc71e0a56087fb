"""An example of every request body, by operation and, where there are several, media type; and of the main answers."""

from __future__ import annotations

from typing import Any

from api.contract.answers import ANSWERS

_FILTER = {"and": [{"key": "year", "gte": 2025}, {"key": "kind", "eq": "policy"}]}
_RECALL = {"query": "which tea do they like?", "top_k": 5, "neighbours": 1}
_FACT = {"text": "Prefers green tea.", "key": "tea", "tags": ["taste"]}
_DOCUMENT = {
    **{"text": "# Loans\n\nBooks may be kept for four weeks.", "format": "markdown", "title": "Loans"},
    **{"external_id": "loans", "attributes": {"year": 2026, "kind": "policy"}, "labels": ["staff"]},
}
_FORM = {
    **{"file": "(content of loans.pdf)", "external_id": "loans", "title": "Loans"},
    **{"attributes": '{"year": 2026}', "labels": '["staff"]'},
}
_TURNS = [
    {"role": "user", "content": "May I renew a book?", "speaker": "Ada"},
    {"role": "assistant", "content": "Yes, twice.", "metadata": {"model": "example"}},
]
_TUNED = {"dense_weight": 0.6, "boosts": [{"filter": {"key": "kind", "eq": "policy"}, "weight": 0.2}]}
_FIGURES = {"questions": 40, "ndcg10_before": 0.71, "ndcg10_after": 0.75, "p": 0.01}
_DAY, _LATER = "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z"

REQUESTS: dict[str, Any] = {
    "create_document": _DOCUMENT,
    "create_document multipart/form-data": _FORM,
    "attach_document": {"text": "Minutes: the shelf is moved on Monday.", "title": "Minutes"},
    "attach_document multipart/form-data": _FORM,
    "create_documents": {"text": "Books may be kept for four weeks.", "external_id": "loans"},
    "retry_jobs": {"collection": "handbook", "error": "fetch_failed", "limit": 50},
    "query": {"query": "how long may I keep a book?", "collections": ["handbook"], "top_k": 5, "filter": _FILTER},
    "create_collection": {"name": "handbook", "attributes": {"year": "number", "kind": "string"}},
    "update_collection": {"near_duplicates": "link", "keep_versions_days": 30},
    "create_context": {
        **{"query": "how long may I keep a book?", "collections": ["handbook"], "message": "How long may I keep it?"},
        **{"max_tokens": 4000, "strategy": "documents"},
    },
    "create_session": {"subject": "user-17", "title": "Renewals", "tags": ["desk"], "max_turns": 500},
    "update_session": {"title": "Renewals and fines", "tags": ["desk", "fines"]},
    "append_turns": {"turns": _TURNS},
    "fork_session": {"turn_id": "trn_01k8example0000000000000000"},
    "promote_session": {"collection": "handbook", "turns": True},
    "pin_turn": {"seq": 1},
    "recall_session": _RECALL,
    "recall": {**_RECALL, "subject": "user-17", "tags": ["desk"]},
    "add_memories": {"subject": "user-17", "memories": [_FACT]},
    "search_memories": {"query": "what do they drink?", "subject": "user-17", "limit": 5},
    "update_memory": {"text": "Prefers black tea.", "reason": "They said so."},
    "replay_trace": {"as_of": _DAY, "tuned": False},
    "replay_traces": {"last": 20, "kind": "query", "tuned": False},
    "create_erasure": {"subject": "user-17"},
    "create_question_set": {
        **{"name": "loans", "collection": "handbook"},
        "questions": [{"text": "how long may I keep a book?", "relevant": {"loans": 1}}],
    },
    "give_feedback": {"query": "how long may I keep a book?", "useful": True, "rating": 5, "comment": "Exact."},
    "apply_tuning": {"parameters": _TUNED, "figures": _FIGURES, "replaces": 0},
    "set_budget": {"tokens": 2_000_000, "micro_usd": 5_000_000, "until": _LATER, "reason": "trial"},
    "create_webhook": {"url": "https://example.com/hooks", "events": ["document.*"], "description": "search index"},
    "update_webhook": {"events": ["document.*", "job.failed"], "enabled": True},
    "rotate_webhook_secret": {"overlap_hours": 24},
    "replay_webhook": {"since": _DAY},
    "create_token": {"subject": "user-17", "scopes": ["query"], "collections": ["handbook"], "lifetime_seconds": 600},
    "openai_create_vector_store": {
        **{"name": "handbook", "expires_after": {"anchor": "last_active_at", "days": 30}},
        **{"metadata": {"team": "desk"}},
    },
    "openai_update_vector_store": {"name": "handbook 2026", "metadata": {"team": "desk"}},
    "openai_search_vector_store": {
        **{"query": "how long may I keep a book?", "max_num_results": 5},
        "filters": {"type": "eq", "key": "kind", "value": "policy"},
    },
    "openai_create_store_file": {"file_id": "file-01k8example0000000000000000", "attributes": {"kind": "policy"}},
    "openai_update_store_file": {"attributes": {"kind": "policy", "year": 2026}},
    "openai_create_file_batch": {"file_ids": ["file-01k8example0000000000000000"], "attributes": {"kind": "policy"}},
    "openai_create_file": {"file": "(content of loans.pdf)", "purpose": "assistants"},
    "openai_create_embeddings": {
        "input": ["how long may I keep a book?"],
        **{"model": "text-embedding-3-small", "encoding_format": "float"},
    },
    "mcp": {
        **{"jsonrpc": "2.0", "id": 1, "method": "tools/call"},
        "params": {"name": "search", "arguments": {"query": "how long may I keep a book?"}},
    },
    "dify_retrieval": {
        **{"knowledge_id": "handbook", "query": "how long may I keep a book?"},
        "retrieval_setting": {"top_k": 5, "score_threshold": 0.2},
    },
    "create_tenant_token": {"scopes": ["query", "manage"], "lifetime_seconds": 600},
    "place_collection": {"placement": "dedicated"},
    "create_key": {"tenant": "library", "name": "reading desk", "scopes": ["query", "converse"], "collections": ["handbook"]},
    "rotate_key": {"overlap_seconds": 3600},
    "create_tenant": {"name": "library", "monthly_tokens": 5_000_000, "metadata": {"contact": "desk@example.com"}},
    "import_tenants": {"csv": "name,plan\nlibrary,free\n"},
    "update_tenant": {"monthly_tokens": 10_000_000},
    "suspend_tenant": {"reads": True},
    "override_limit": {"value": 50, "expires_at": _LATER, "reason": "migration week"},
    "search_tenants": {
        **{"tenants": ["library"], "reason": "ticket 4711: a passage cannot be found"},
        **{"query": "how long may I keep a book?", "top_k": 3},
    },
}


def described(document: dict[str, Any]) -> None:
    """Put them where they belong."""
    for methods in document["paths"].values():
        for operation in methods.values():
            name = operation["operationId"]
            for media, content in operation.get("requestBody", {}).get("content", {}).items():
                content["example"] = REQUESTS.get(f"{name} {media}", REQUESTS.get(name))
            if name in ANSWERS:
                status, body = ANSWERS[name]
                status = status or min(operation["responses"])
                operation["responses"][status]["content"]["application/json"]["example"] = body
