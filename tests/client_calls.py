"""A call of the Python client for each operation of the service, with everything that can be given: for its contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from carrel_client import Carrel

Call = Callable[[Carrel], Any]

WISHES: dict[str, Any] = {
    "queries": ["other words"],
    "collections": ["default"],
    "filter": {"key": "year", "op": "eq", "value": 2026},
    "diversity": {"per_document": 1},
    "expand": {"before": 1, "after": 1},
    "boosts": [{"filter": {"key": "year", "op": "exists"}, "weight": 1.0}],
    "recency": {"weight": 0.1, "half_life_days": 30},
    "min_relevance": 0.1,
    "group_by": "document",
    "group_size": 2,
    "rerank": False,
    "rewrite": "none",
    "as_of": 1,
    "mode": "hybrid",
    "dense_weight": 0.5,
    "tuned": False,
    "explain": True,
}
OPTIONS: dict[str, Any] = {
    "profile": "standard",
    "near_duplicates": "keep",
    "near_threshold": 0.9,
    "semantic_cache": False,
    "semantic_threshold": 0.9,
    "keep_versions_days": 1,
    "attributes": {"year": "number"},
}
BOUNDS: dict[str, Any] = {"collections": ["default"], "labels": ["staff"], "read_only": True}
WAITS: dict[str, Any] = {"after": ["job_1"], "after_policy": "any_end"}
DOCUMENT: dict[str, Any] = {"external_id": "x", "title": "x", "source": "x", "attributes": {"a": 1}, "labels": ["b"], **WAITS}
AUDIT = dict.fromkeys(("principal", "action", "decision", "target", "since", "until"), "x")
TOKENS = {"tokens": 1, "micro_usd": 1, "reason": "x"}

BOUNDS_OF_SESSIONS: dict[str, Any] = {
    **{"title": "x", "tags": ["x"], "metadata": {"a": 1}, "idle_ttl_seconds": 60, "absolute_ttl_seconds": 60},
    **{"max_turns": 1, "max_tokens": 1, "when_full": "archive", "budget_tokens": 1, "budget_micro_usd": 1},
}
RECALL: dict[str, Any] = {
    **{"top_k": 3, "neighbours": 1, "roles": ["user"], "said_after": "x", "said_before": "x", "asked_at": "x"},
    **{"times": "ignore", "recency": 0.1, "mode": "lexical", "explain": True},
}
OF_SESSIONS: dict[str, Any] = {
    **{"strategy": "hybrid", "memories": True, "shares": {"recent": 0.5}, "newest_turns": 1, "recall_top_k": 3},
    **{"pins": ["x"], "knowledge": "system"},
}
ABOUT: dict[str, Any] = {"subject": "ann", "agent": "x", "session_id": "ses_1"}
BELIEVED: dict[str, Any] = {**ABOUT, "key": "x", "tag": "x", "as_of": "x", "valid_at": "x", "everything": True}
FACT: dict[str, Any] = {
    **{"text": "x", "key": "x", "tags": ["x"], "metadata": {"a": 1}, "valid_from": "x", "valid_to": "x", "expires_at": "x"},
    **{"sources": [{"session_id": "ses_1", "seq": 1}], "reason": "x"},
}
OTHERWISE: dict[str, Any] = {"profile": "x", "collections": ["default"], "as_of": 1, "tuned": False, "fresh_vector": True}
SAID = {"role": "user", "content": "x"}

#: By operation id. Of several calls the second sends what the first cannot.
CALLS: dict[str, tuple[Call, ...]] = {
    "create_document": (
        lambda c: c.documents.create(text="x", dry_run=True, **DOCUMENT),
        lambda c: c.documents.create(url="https://example.com/x", **DOCUMENT),
    ),
    "list_documents": (lambda c: next(c.documents.list(collection="default", external_ids=["x"])),),
    "get_document": (lambda c: c.documents.get("doc_1"),),
    "delete_document": (lambda c: c.documents.delete("doc_1", **WAITS),),
    "get_document_text": (lambda c: c.documents.text("doc_1"),),
    "create_documents": (lambda c: next(c.documents.bulk([{"text": "x"}], new_documents=1, new_bytes=1)),),
    "list_jobs": (lambda c: next(c.jobs.list(collection="x", state="failed", error="x", dead=True)),),
    "retry_jobs": (lambda c: next(c.jobs.retry_all(collection="x", error="x")),),
    "get_job": (lambda c: c.jobs.get("job_1"),),
    "watch_job": (lambda c: next(c.jobs.watch("job_1")),),
    "cancel_job": (lambda c: c.jobs.cancel("job_1"),),
    "retry_job": (lambda c: c.jobs.retry("job_1"),),
    "query": (lambda c: c.query("x", top_k=3, session="ses_1", **WISHES),),
    "create_context": (
        lambda c: c.context("x", max_tokens=100, tokenizer="embedding", top_k=3, **WISHES),
        lambda c: c.chat_context(session="ses_1", message="x", max_tokens=100, **OF_SESSIONS),
    ),
    "get_passage": (lambda c: c.passage("chk_1", around=5, version=2, session="ses_1"),),
    "create_collection": (lambda c: c.collections.create(name="x", **OPTIONS),),
    "list_collections": (lambda c: next(c.collections.list()),),
    "update_collection": (lambda c: c.collections.update("x", **OPTIONS),),
    "delete_collection": (lambda c: c.collections.delete("x"),),
    "list_profiles": (lambda c: c.collections.profiles(),),
    "get_tuning": (lambda c: c.collections.tuning("x"),),
    "apply_tuning": (lambda c: c.collections.tune("x", parameters={}, replaces=0, figures={}),),
    "roll_back_tuning": (lambda c: c.collections.roll_back("x", version=1),),
    "create_question_set": (lambda c: c.question_sets.create(name="x", collection="x", questions=[]),),
    "list_question_sets": (lambda c: next(c.question_sets.list(collection="x")),),
    "get_question_set": (lambda c: c.question_sets.get("qs_1"),),
    "delete_question_set": (lambda c: c.question_sets.delete("qs_1"),),
    "give_feedback": (
        lambda c: c.feedback.give(query="x", passage_id="x", document_id="x", useful=True, rating=5, comment="x", subject="x"),
    ),
    "list_feedback": (lambda c: next(c.feedback.list(collection="x")),),
    "list_events": (lambda c: next(c.events.list(type="x", since="evt_1")),),
    "get_usage": (lambda c: c.usage(first="2026-01-01", last="2026-01-02", group_by=["day"]),),
    "export_usage": (lambda c: c.export_usage(month="2026-01", format="json"),),
    "create_webhook": (
        lambda c: c.webhooks.create(url="https://example.com", events=["*"], description="x", coalesce_seconds=1),
    ),
    "list_webhooks": (lambda c: next(c.webhooks.list()),),
    "get_webhook": (lambda c: c.webhooks.get("whk_1"),),
    "update_webhook": (
        lambda c: c.webhooks.update(
            "whk_1", url="https://example.com", events=["*"], description="x", coalesce_seconds=1, enabled=False
        ),
    ),
    "delete_webhook": (lambda c: c.webhooks.delete("whk_1"),),
    "rotate_webhook_secret": (lambda c: c.webhooks.rotate("whk_1", overlap_hours=1),),
    "test_webhook": (lambda c: c.webhooks.test("whk_1"),),
    "replay_webhook": (lambda c: c.webhooks.replay("whk_1", since="x", until="y"),),
    "list_webhook_deliveries": (lambda c: next(c.webhooks.deliveries("whk_1", state="failed")),),
    "replay_webhook_delivery": (lambda c: c.webhooks.replay_delivery("whk_1", "dlv_1"),),
    "create_session": (lambda c: c.sessions.create(subject="ann", **BOUNDS_OF_SESSIONS),),
    "list_sessions": (lambda c: next(c.sessions.list(subject="ann", tag="x", state="open")),),
    "get_session": (lambda c: c.sessions.get("ses_1"),),
    "update_session": (lambda c: c.sessions.update("ses_1", **BOUNDS_OF_SESSIONS),),
    "append_turns": (lambda c: c.sessions.append("ses_1", [SAID]), lambda c: c.sessions.say("ses_1", **SAID)),
    "list_turns": (lambda c: next(c.sessions.turns("ses_1", order="newest")),),
    "get_turn": (lambda c: c.sessions.turn("ses_1", "trn_1"),),
    "close_session": (lambda c: c.sessions.close("ses_1"),),
    "archive_session": (lambda c: c.sessions.archive("ses_1"),),
    "resume_session": (lambda c: c.sessions.resume("ses_1"),),
    "fork_session": (lambda c: c.sessions.fork("ses_1", turn_id="trn_1"),),
    "attach_document": (
        lambda c: c.session_documents.create("ses_1", text="x", **DOCUMENT),
        lambda c: c.session_documents.create("ses_1", url="https://example.com/x"),
    ),
    "list_attached_documents": (lambda c: next(c.session_documents.list("ses_1")),),
    "get_attached_document": (lambda c: c.session_documents.get("ses_1", "doc_1"),),
    "get_attached_text": (lambda c: c.session_documents.text("ses_1", "doc_1"),),
    "detach_document": (lambda c: c.session_documents.delete("ses_1", "doc_1"),),
    "promote_session": (lambda c: c.session_documents.promote("ses_1", collection="x", documents=["doc_1"], turns=True),),
    "pin_turn": (lambda c: c.pins.create("ses_1", seq=1),),
    "list_pins": (lambda c: c.pins.list("ses_1"),),
    "unpin_turn": (lambda c: c.pins.delete("ses_1", seq=1),),
    "recall_session": (lambda c: c.sessions.recall("ses_1", "x", **RECALL),),
    "recall": (lambda c: c.recall("x", subject="ann", tags=["x"], **RECALL),),
    "add_memories": (
        lambda c: c.memories.add(extract="verbatim", messages=[SAID], **ABOUT, **FACT),
        lambda c: c.memories.add(subject="ann", memories=[FACT]),
    ),
    "list_memories": (lambda c: next(c.memories.list(**BELIEVED)),),
    "search_memories": (lambda c: c.memories.search("x", limit=3, **BELIEVED),),
    "get_memory": (lambda c: c.memories.get("mem_1", as_of="x"),),
    "update_memory": (lambda c: c.memories.update("mem_1", **FACT),),
    "delete_memory": (lambda c: c.memories.delete("mem_1", reason="x"),),
    "list_memory_versions": (lambda c: next(c.memories.history("mem_1")),),
    "list_traces": (lambda c: next(c.traces.list(kind="query", subject="ann", session_id="ses_1", since="x", until="x")),),
    "get_trace": (lambda c: c.traces.get("trc_1"),),
    "replay_trace": (lambda c: c.traces.replay("trc_1", **OTHERWISE),),
    "replay_traces": (lambda c: next(c.traces.replays(last=1, session_id="ses_1", subject="ann", kind="query", **OTHERWISE)),),
    "export_session": (lambda c: next(c.exports.session("ses_1")),),
    "export_subject": (lambda c: next(c.exports.subject("ann")),),
    "erase_session": (lambda c: c.erasures.session("ses_1"),),
    "create_erasure": (lambda c: c.erasures.subject("ann"),),
    "get_erasure": (lambda c: c.erasures.get("era_1"),),
    "create_token": (lambda c: c.token(subject="ann", scopes=["query"], lifetime_seconds=60, **BOUNDS),),
    "list_audit": (lambda c: next(c.audit.list(**AUDIT)),),
    "export_audit": (lambda c: next(c.audit.export(from_position=2)),),
    "list_any_audit": (lambda c: next(c.admin.audit.list("x", **AUDIT)),),
    "export_any_audit": (lambda c: next(c.admin.audit.export("x", from_position=2)),),
    "list_budgets": (lambda c: c.admin.budgets.show("x"),),
    "set_budget": (
        lambda c: c.admin.budgets.set("x", kind="llm", span="day", soft=True, **TOKENS),
        lambda c: c.admin.budgets.override("x", kind="llm", span="day", until="x", **TOKENS),
    ),
    "create_tenant_token": (lambda c: c.admin.tenants.token("x", scopes=["query"], lifetime_seconds=60),),
    "get_placement": (lambda c: c.admin.tenants.placement("x", "y"),),
    "place_collection": (lambda c: c.admin.tenants.place("x", "y", placement="auto"),),
    "create_key": (
        lambda c: c.admin.keys.create(
            tenant="x", name="x", scopes=["query"], expires_at="x", allowed_addresses=["127.0.0.1"], **BOUNDS
        ),
    ),
    "list_keys": (lambda c: next(c.admin.keys.list(tenant="x")),),
    "get_key": (lambda c: c.admin.keys.get("key_1"),),
    "revoke_key": (lambda c: c.admin.keys.revoke("key_1"),),
    "rotate_key": (lambda c: c.admin.keys.rotate("key_1", overlap_seconds=1),),
    "create_tenant": (lambda c: c.admin.tenants.create(name="x", monthly_tokens=1, plan="x", metadata={"a": "b"}),),
    "import_tenants": (lambda c: c.admin.tenants.import_csv("name\nx\n"),),
    "list_tenants": (lambda c: next(c.admin.tenants.list()),),
    "get_tenant": (lambda c: c.admin.tenants.get("x"),),
    "update_tenant": (lambda c: c.admin.tenants.update("x", monthly_tokens=1, plan="x", metadata={}),),
    "delete_tenant": (lambda c: c.admin.tenants.delete("x"),),
    "suspend_tenant": (lambda c: c.admin.tenants.suspend("x", reads=True),),
    "resume_tenant": (lambda c: c.admin.tenants.resume("x"),),
    "list_limits": (lambda c: c.admin.tenants.limits("x"),),
    "override_limit": (lambda c: c.admin.tenants.override("x", "documents", 5, expires_at="x", reason="x"),),
    "restore_limit": (lambda c: c.admin.tenants.restore("x", "documents"),),
    "list_deletions": (lambda c: next(c.admin.tenants.deletions()),),
    "get_deletion": (lambda c: c.admin.tenants.deletion("del_1"),),
    "list_plans": (lambda c: c.admin.tenants.plans(),),
    "search_tenants": (lambda c: c.admin.search("x", tenants=["x"], reason="x", collections=["x"], filter={}, top_k=1),),
    "get_statistics": (lambda c: c.admin.statistics(hours=1),),
    "list_noisiest": (lambda c: c.admin.noisiest(by="tokens", hours=1, top=1),),
    "health": (lambda c: c.alive(),),
    "readiness": (lambda c: c.ready(),),
}
