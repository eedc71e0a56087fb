"""Examples of the main answers: the status that they belong to, empty for the least, and the body."""

from __future__ import annotations

from typing import Any

_AT, _LATER = "2026-03-02T09:30:00.000Z", "2026-03-02T09:30:01.200Z"
_DOCUMENT_ID, _JOB_ID = "doc_01k8example0000000000000000", "job_01k8example0000000000000000"
_SESSION_ID, _TURN_ID = "ses_01k8example0000000000000000", "trn_01k8example0000000000000000"
_QUESTION, _SENTENCE = "how long may I keep a book?", "Books may be kept for four weeks."

_DOCUMENT: dict[str, Any] = {
    **{"id": _DOCUMENT_ID, "etag": f'"{_DOCUMENT_ID}.1"', "external_id": "loans", "collection": "handbook"},
    **{"state": "queued", "version": 1, "title": "Loans", "source": None, "media_type": "text/markdown"},
    **{"attributes": {"year": 2026, "kind": "policy"}, "labels": ["staff"], "bytes": 42, "chars": 0, "pages": 0},
    **{"warnings": [], "profile": "standard", "near_duplicate_of": None, "created_at": _AT},
    "chunking": {"chunk_tokens": 224, "context_tokens": 32, "overlap_tokens": 0, "splitter": "auto", "parent_tokens": 0},
}
_JOB: dict[str, Any] = {
    **{"id": _JOB_ID, "kind": "ingest", "state": "queued", "stage": "queued", "document_id": _DOCUMENT_ID},
    **{"version_id": "ver_01k8example0000000000000000", "retry_of": None, "outcome": None, "waits_for": []},
    **{"after_policy": "all_succeeded", "chunks_total": 0, "chunks_done": 0, "tokens_charged": 0, "tokens_cached": 0},
    "progress": {
        **{"documents_done": 0, "documents_total": 1, "pages": 0, "chunks_done": 0, "chunks_total": 0},
        **{"tokens_done": 0, "tokens_total": 0, "fraction": 0.0, "eta_seconds": None},
    },
    **{"error_code": None, "error_detail": None, "created_at": _AT, "updated_at": _AT, "finished_at": None},
}
_PASSAGE: dict[str, Any] = {
    **{"id": "7c9e6679-7425-40de-944b-e07fc1f90ae7", "score": 0.83, "text": _SENTENCE, "start": 9, "end": 42},
    **{"document_id": _DOCUMENT_ID, "external_id": "loans", "version": 1, "collection": "handbook", "title": "Loans"},
    **{"source": None, "headings": ["Loans"], "first_page": None, "last_page": None, "attributes": {"year": 2026}},
    **{"relevance": 0.62, "boost": 0.0, "rerank_score": None, "neighbour_of": None, "warnings": []},
    **{"url": f"/v1/documents/{_DOCUMENT_ID}", "tokens": 8},
}
_USED = {"embedding_tokens": 9, "cached_tokens": 0, "context_tokens": 8, "rerank_tokens": 0, "llm_tokens": 0}
_ASKED: dict[str, Any] = {
    **{"usage": _USED, "degraded": [], "cached": False, "semantic_cache": None, "explanation": None},
    **{"timings_ms": {"embed": 1.9, "search": 0.8}, "trace_id": "trc_01k8example0000000000000000"},
}
_CONTEXT_TEXT = f"[1] Loans\n{_SENTENCE}"
_SESSION: dict[str, Any] = {
    **{"id": _SESSION_ID, "subject": "user-17", "title": "Renewals", "tags": ["desk"], "metadata": {}, "state": "open"},
    **{"created_at": _AT, "last_active_at": _AT, "expires_at": None, "idle_ttl_seconds": None},
    **{"absolute_ttl_seconds": None, "turns": 0, "tokens": 0, "archived_turns": 0, "max_turns": 500, "max_tokens": None},
    **{"when_full": "refuse", "budget_tokens": None, "budget_micro_usd": None, "spent_tokens": 0, "spent_micro_usd": 0},
    **{"forked_from": None, "forked_at_seq": None},
}
_SAID: dict[str, Any] = {
    **{"id": _TURN_ID, "session_id": _SESSION_ID, "seq": 1, "role": "user", "speaker": "Ada"},
    **{"content": "I like green tea.", "metadata": {}, "tokens": 5, "said_at": _AT},
}

ANSWERS: dict[str, tuple[str, Any]] = {
    "create_document": ("202", {"document": _DOCUMENT, "job": _JOB}),
    "get_document": ("", {**_DOCUMENT, "state": "live", "chars": 42}),
    "get_job": ("", {**_JOB, "state": "running", "stage": "embedding", "updated_at": _LATER}),
    "query": ("", {"passages": [_PASSAGE], "groups": None, **_ASKED}),
    "create_context": (
        "",
        {
            **{"text": _CONTEXT_TEXT, "tokens": 14, "max_tokens": 4000, "tokenizer": "o200k_base"},
            **{"citations": [{**_PASSAGE, "number": 1, "context_start": 10, "context_end": len(_CONTEXT_TEXT)}]},
            **{"left_out": 0, **_ASKED},
        },
    ),
    "create_session": ("", _SESSION),
    "get_session": ("", {**_SESSION, "turns": 2, "tokens": 31, "last_active_at": _LATER}),
    "recall_session": (
        "",
        {
            "turns": [{**_SAID, "score": 0.71, "before": [], "after": [], "legs": None}],
            **{"spans": [], "usage": {"embedding_tokens": 6, "cached_tokens": 0}, "degraded": [], "waiting": 0},
            **{"timings_ms": {"search": 0.4}, "trace_id": "trc_01k8example0000000000000000"},
        },
    ),
    "get_memory": (
        "",
        {
            **{"id": "mem_01k8example0000000000000000", "version": 1, "subject": "user-17", "agent": None},
            **{"session_id": None, "key": "tea", "text": "Prefers green tea.", "tags": ["taste"], "metadata": {}},
            **{"valid_from": _AT, "valid_to": None, "superseded_by": None, "conflicts_with": [], "confirmations": 0},
            **{"confirmed_at": None, "expires_at": None, "created_at": _AT, "recorded_at": _AT},
            "sources": [{"session_id": _SESSION_ID, "seq": 1, "document_id": None}],
        },
    ),
    "openai_create_vector_store": (
        "",
        {
            **{"id": "vs_01k8example0000000000000000", "object": "vector_store", "created_at": 1_772_443_800},
            **{"name": "handbook", "description": None, "usage_bytes": 0, "status": "completed"},
            **{"expires_after": None, "expires_at": None, "last_active_at": 1_772_443_800, "metadata": {"team": "desk"}},
            "file_counts": {"in_progress": 0, "completed": 0, "failed": 0, "cancelled": 0, "total": 0},
        },
    ),
    "openai_create_embeddings": (
        "",
        {
            **{"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.011, -0.042, 0.087]}]},
            **{"model": "text-embedding-3-small", "usage": {"prompt_tokens": 7, "total_tokens": 7, "charged_tokens": 7}},
        },
    ),
}
ANSWERS["recall"] = ANSWERS["recall_session"]
