"""Three tenants with everything a tenant can have, each thing marked with a word that occurs nowhere else.

The service is the one that `api.wiring.api` builds, over SQLite and the engine's real server. Only the queue and the worker's
loop are replaced: jobs run when `run_jobs` says so.
"""

from __future__ import annotations

import json
import logging
import random
import sqlite3
import string
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel, col

from api.wiring import api as wiring_api
from api.wiring import core as wiring
from api.wiring import worker as wiring_worker
from api.wiring.api import ApiServices, build_api
from api.wiring.core import operator_key
from api.wiring.worker import build_worker
from config.clock import system_clock
from config.ids import new_id
from config.settings import Settings
from ingestion.jobs.tables import Instance
from rag.lexical.counting import TermStatistics
from rag.sessions.sessions import Sessions
from rag.sessions.values import NewSession
from tenants.context import TENANT_SCOPES
from tenants.identity.keys import key_id_of, make_secret
from tenants.identity.tokens import TokenSigner, Wish
from tenants.tables import ApiKey
from tests.identity_provider import AUDIENCE, Provider, identity_provider
from tests.isolation.declarations import (
    BY_COLLECTION,
    BY_LABELS,
    BY_SUBJECT,
    OPERATIONS,
    USER_BY_COLLECTION,
    USER_BY_LABELS,
    Operation,
    kind_of,
)
from tests.isolation.doors import Answer, HttpDoor
from tests.isolation.stand_ins import InlineQueue, InlineWorker, Lines, RewoundCache
from tests.support import served_engine

SHAPE = 12  #: characters at the end of a value that make it this one and no other
SEED = 2026
CONTENT = ("text", "title", "source", "attribute value")  #: each document has its own
ALL_SCOPES = " ".join(f"carrel:{scope}" for scope in TENANT_SCOPES)
#: What is said in sessions. Of a chance of its own, as subjects are.
SPOKEN = ("title of session", "content of turn", "key of turn")
FAR = 4_000_000_000  # Unix seconds
Values = dict[str, Any]
#: The column of each table that says whose a row is.
OWNERS = {
    name: "id" if name == "tenants" else "tenant_id"
    for name, table in SQLModel.metadata.tables.items()
    if name == "tenants" or "tenant_id" in table.c
}


@dataclass
class Member:
    """A tenant: what a good call of its own says, by kind or kind/variant, and who may call."""

    number: int
    tenant_id: str = ""
    own: dict[str, str] = field(default_factory=dict)
    credentials: dict[str, str] = field(default_factory=dict)

    def pool(self, kind: str) -> list[str]:
        """Its values of a kind with all variants, or of one variant."""
        return [value for name, value in self.own.items() if name == kind or name.startswith(f"{kind}/")]


class World:
    def __init__(
        self,
        folder: Path,
        services: ApiServices,
        worker: InlineWorker,
        cache: RewoundCache,
        logged: list[str],
        provider: Provider,
    ) -> None:
        self.logged, self._provider = logged, provider
        self.services, self._worker, self._cache, self._folder = services, worker, cache, folder
        services.core.limits.fresh_ms = 0  # or the statements of two calls would differ by when they were made
        self._random = random.Random(SEED)
        self.door = HttpDoor(services)
        with services.core.database.system_write() as session:  # readiness misses a worker's heartbeat otherwise
            tomorrow = services.core.clock() + 24 * 3600 * 1000
            session.add(Instance(id="ins_worker", kind="worker", started_at=tomorrow, seen_at=tomorrow))
        self.operator = f"Bearer {operator_key(services.core.settings)}"
        self.members = [self._member(number) for number in range(3)]
        for member in self.members:
            self._later(member)
        self._cache.mark()
        self._copy(self._database_file, self._pristine)
        self._dumps = [self.dump(member) for member in self.members]

    @property
    def _database_file(self) -> Path:
        return Path(self.services.core.database.engine.url.database or "")

    @property
    def _pristine(self) -> Path:
        return self._folder / "pristine.db"

    def rewind(self) -> None:
        """Everything in SQL and what is kept of it is again as it was, so that one probe cannot be seen by the next."""
        self._copy(self._pristine, self._database_file)
        self._cache.rewind()
        self.services.retriever.statistics = TermStatistics()

    def changed(self) -> list[str]:
        """Tenants other than the first whose data is not what it was."""
        found = []
        for member in self.members[1:]:
            if self.dump(member) != self._dumps[member.number]:
                found.append(f"the data of tenant {member.number} changed")
        return found

    def _copy(self, source: Path, target: Path) -> None:
        start, end = sqlite3.connect(source), sqlite3.connect(target)
        try:
            start.backup(end)
        finally:
            start.close()
            end.close()

    def dump(self, member: Member) -> str:
        """All that the database says of a tenant, and the ids of its points."""
        rows: dict[str, list[str]] = {}
        with closing(sqlite3.connect(self._database_file)) as connection:  # without SQLAlchemy: it is done after every write
            for name, owner in OWNERS.items():
                found = connection.execute(f"SELECT * FROM {name} WHERE {owner} = ?", (member.tenant_id,))
                rows[name] = sorted(map(str, found))
        context = self.services.core.registry.context_of_job(member.tenant_id, "dump")
        points = self.services.store.for_tenant(context, self.services.embedding.space).ids()
        return json.dumps([rows, points])

    def send(self, operation: Operation, values: Values, credential: str | None) -> Answer:
        return self.door.send(operation.name, values, credential)

    def good(self, operation: Operation, member: Member) -> Values:
        """The declared good call with the member's own values."""
        places = {place: kind for place, kind in operation.takes.items() if not kind_of(kind).optional}
        return filled(operation.parts, {place: member.own[kind] for place, kind in places.items()})

    def marks(self, *members: Member) -> list[str]:
        """Words of which each gives away something of these tenants."""
        return [word for member in members for word in {*member.own.values(), *map(_bare, member.credentials.values())}]

    # --- making it

    def word(self, kind: str) -> str:
        letters = string.ascii_lowercase + string.digits
        return kind.replace(" ", "") + "".join(self._random.choices(letters, k=SHAPE))

    def ask(self, name: str, credential: str, /, **values: Any) -> Any:
        answer = self.door.send(name, values, credential)
        assert answer.status < 300, answer
        return json.loads(answer.body)

    def _member(self, number: int) -> Member:
        member = Member(number)
        own = member.own
        for kind in (
            "text",
            "title",
            "external id",
            "source",
            "label",
            "key name",
            "attribute key",
            "attribute value",
            "number key",
            "bound",
            "idempotency key",
            "idempotency key/of collection name",
            "idempotency key/of collection name/other",
            "new set name",
            "set name",
            "set name/second",
            "tag",
            "memory key",
        ):
            own[kind] = self.word(kind.partition("/")[0])
        for kind in (
            "collection name",
            "collection name/other",
            "collection name/empty",
            "new collection name",
            "new tenant name",
            "tenant/name",
        ):
            own[kind] = self.word(kind.partition("/")[0])
        # Of a chance of its own: words of documents may share letters and digits with a question, and stay as they are.
        for kind in ("subject", "tag", *SPOKEN):
            own[kind] = kind.replace(" ", "") + "".join(
                random.Random(f"{kind} {number}").choices(string.ascii_lowercase, k=SHAPE)
            )
        tenant = self.ask("POST /v1/admin/tenants", self.operator, body={"name": own["tenant/name"]})
        member.tenant_id = own["tenant"] = tenant["id"]
        gone = self.ask("POST /v1/admin/tenants", self.operator, body={"name": self.word("gone")})
        deletion = self.ask("DELETE /v1/admin/tenants/{tenant}", self.operator, path={"tenant": gone["id"]})
        own["deletion"] = deletion["id"]
        self._credentials(member)
        for name in ("collection name", "collection name/other"):
            key = {"Idempotency-Key": own[f"idempotency key/of {name}"]}
            collection = self.ask("POST /v1/collections", member.credentials["full key"], body={"name": own[name]}, header=key)
            own[name.replace(" name", "")] = collection["id"]
        self.ask("POST /v1/collections", member.credentials["full key"], body={"name": own["collection name/empty"]})
        own["error code"] = self.word("error")
        self._documents(member)
        self._question_sets(member)
        self._opinions(member)
        self._erasure(member)
        self._memories(member)
        self._webhook(member)
        self._sessions(member)
        self._attached(member)
        self._traces(member)
        self._stores(member)
        self._found_in_sql(member)
        return member

    def _credentials(self, member: Member) -> None:
        own, scopes = member.own, [str(scope) for scope in TENANT_SCOPES]
        kinds: dict[str, dict[str, Any]] = {
            "full key": {},
            "revoked key": {},
            "expired key": {"expires_at": "2099-01-01T00:00:00Z"},
            "key from elsewhere": {"allowed_addresses": ["192.0.2.1"]},
            "read-only key": {"read_only": True},
            BY_COLLECTION: {"collections": [own["collection name/other"]]},
            BY_LABELS: {"labels": [self.word("label")]},
            **{f"{scope} key": {"scopes": [scope]} for scope in scopes},
        }
        for name, bounds in kinds.items():
            body = {"tenant": member.tenant_id, "name": own["key name"], "scopes": scopes, **bounds}
            key = self.ask("POST /v1/admin/keys", self.operator, body=body)
            own[f"key/{name}"], member.credentials[name] = key["id"], f"Bearer {key['secret']}"
        own["key"] = own["key/full key"]
        self.ask("DELETE /v1/admin/keys/{key_id}", self.operator, path={"key_id": own["key/revoked key"]})
        with self.services.core.database.system_write() as session:
            expired = sa.update(ApiKey).where(col(ApiKey.id) == own["key/expired key"]).values(expires_at=1)
            session.execute(expired)
        for name, subject in {"subject token": own["subject"], BY_SUBJECT: "somebody else"}.items():
            body = {"subject": subject, "scopes": scopes}
            issued = self.ask("POST /v1/tokens", member.credentials["full key"], body=body)
            member.credentials[name] = f"Bearer {issued['token']}"
        for name, held in {"full": scopes, **{scope: [scope] for scope in scopes}}.items():
            body = {"scopes": held, "lifetime_seconds": 3600}
            issued = self.ask(
                "POST /v1/admin/tenants/{tenant}/tokens", self.operator, path={"tenant": member.tenant_id}, body=body
            )
            member.credentials[f"{name} token"] = f"Bearer {issued['token']}"
        member.credentials["user"] = self.user(member)
        member.credentials["user of another subject"] = self.user(member, sub="somebody else")
        member.credentials["querying user"] = self.user(member, scope=None)
        member.credentials[USER_BY_COLLECTION] = self.user(member, rooms=[own["collection name/other"]])
        member.credentials[USER_BY_LABELS] = self.user(member, groups=[self.word("label")])

    def _documents(self, member: Member) -> None:
        own = member.own
        self._bring(member, "", external_id=own["external id"], labels=[own["label"]])
        self._bring(member, "/plain")
        self._bring(member, "/purged")
        failing = self._form(member)
        own["document/failed"], own["job/failed"] = failing["document"]["id"], failing["job"]["id"]
        self.run_jobs()
        self._delete(member, "/purged")
        self.run_jobs()
        self.ask(
            "POST /v1/query",
            member.credentials["full key"],
            body={"query": own["text"], "collections": [own["collection name"]]},
        )

    def _question_sets(self, member: Member) -> None:
        own = member.own
        for variant in ("", "/second"):
            questions = [{"text": own["text"], "relevant": {own["external id"]: 1}}]
            body = {"name": own[f"set name{variant}"], "collection": own["collection name"], "questions": questions}
            made = self.ask("POST /v1/question-sets", member.credentials["full key"], body=body)
            own[f"question set{variant}"] = made["id"]

    def _sessions(self, member: Member) -> None:
        """The second one is what lists go on with."""
        own, key = member.own, member.credentials["full key"]
        for variant in ("", "/second"):
            body = {"subject": own["subject"], "title": own["title of session"], "tags": [own["tag"]]}
            own[f"session{variant}"] = self.ask("POST /v1/sessions", key, body=body)["id"]
        turns = [{"role": "user", "content": own["content of turn"], "idempotency_key": own["key of turn"]}] * 2
        turns[1] = {"role": "assistant", "content": own["content of turn"]}
        path = {"session_id": own["session"]}
        said = self.ask("POST /v1/sessions/{session_id}/turns", key, path=path, body={"turns": turns})
        own["turn"], own["turn/second"] = (turn["id"] for turn in said["data"])
        self.ask("POST /v1/sessions/{session_id}/pins", key, path=path, body={"seq": 1})

    def _erasure(self, member: Member) -> None:
        """Asked for before there was anything to erase."""
        own, key = member.own, member.credentials["full key"]
        own["subject in a path"] = own["subject"]
        own["erasure"] = self.ask("POST /v1/erasures", key, body={"subject": own["subject"]})["id"]

    def _attached(self, member: Member) -> None:
        own, key = member.own, member.credentials["full key"]
        path = {"session_id": own["session"]}
        own["attached external id"] = self.word("attachment")
        for variant in ("", "/second"):
            own[f"text of attached{variant}"] = self.word("attached")
            body = {"text": own[f"text of attached{variant}"], "external_id": own["attached external id"] + variant}
            brought = self.ask("POST /v1/sessions/{session_id}/documents", key, path=path, body=body)
            own[f"attached document{variant}"] = brought["document"]["id"]
        self.run_jobs()
        etag = f'"{own["attached document"]}.1"'
        for operation in (
            "POST /v1/sessions/{session_id}/documents",
            "DELETE /v1/sessions/{session_id}/documents/{document_id}",
        ):
            own[f"etag/{operation}"] = etag
        asked = {"query": own["text of attached"], "collections": [], "session": own["session"], "mode": "lexical"}
        own["passage of attached"] = self.ask("POST /v1/query", key, body=asked)["passages"][0]["id"]

    def _webhook(self, member: Member) -> None:
        own, key = member.own, member.credentials["full key"]
        own["purpose of webhook"] = self.word("purpose")
        url = f"https://{self.word('host')}.example.com/"
        body = {"url": url, "events": ["*"], "description": own["purpose of webhook"]}
        made = self.ask("POST /v1/webhooks", key, body=body)
        own["webhook"], own["secret of webhook"] = made["id"], made["secret"]
        own["delivery"] = self.ask("POST /v1/webhooks/{webhook_id}/test", key, path={"webhook_id": made["id"]})["id"]

    def _traces(self, member: Member) -> None:
        """Of the subject's own questions, so that it and the tenant's keys can reach them."""
        own, token = member.own, member.credentials["subject token"]
        for trace in ("trace", "trace/second"):
            asked = {"query": own["text"], "collections": [own["collection name"]]}
            own[trace] = self.ask("POST /v1/query", token, body=asked)["trace_id"]
        asked = {"session": own["session"], "query": own["text"], "memories": True, "collections": [own["collection name"]]}
        own["trace/of a session"] = self.ask("POST /v1/context", token, body=asked)["trace_id"]
        asked = {"query": own["text"]}
        own["trace/of a recall"] = self.ask("POST /v1/recall", token, body=asked)["trace_id"]
        own["traced subject"], own["traced session"] = own["subject"], own["session"]
        self.services.traces.tracer.flush()

    def _stores(self, member: Member) -> None:
        """A vector store with a file and the batch that brought it; and a file that is in none."""
        own, key = member.own, member.credentials["full key"]
        for variant in ("", "/second"):
            own[f"text of file{variant}"] = self.word("filed")
            form = {"file": own[f"text of file{variant}"], "purpose": "user_data"}
            own[f"file{variant}"] = self.ask("POST /v1/files", key, form=form)["id"]
        own["name of store"] = self.word("store")
        store = self.ask("POST /v1/vector_stores", key, body={"name": own["name of store"]})["id"]
        own["vector store"] = own["collection name/of store"] = store
        path, body = {"vector_store_id": store}, {"file_ids": [own["file"]]}
        batch = self.ask("POST /v1/vector_stores/{vector_store_id}/file_batches", key, path=path, body=body)
        own["file batch"], own["store file"], own["listed after"] = batch["id"], own["file"], own["file"]
        self.run_jobs()

    def _opinions(self, member: Member) -> None:
        own, key = member.own, member.credentials["full key"]
        for comment in ("feedback", "feedback/second"):
            own[f"comment of {comment}"] = self.word("comment")
            body = {"query": own["text"], "document_id": own["document"], "useful": True}
            own[comment] = self.ask("POST /v1/feedback", key, body={**body, "comment": own[f"comment of {comment}"]})["id"]
        boost = {"filter": {"key": own["attribute key"], "op": "eq", "value": own["attribute value"]}, "weight": 0.1}
        path, body = {"name": own["collection name"]}, {"parameters": {"boosts": [boost]}, "replaces": 0}
        self.ask("PUT /v1/collections/{name}/tuning", key, path=path, body=body)

    def _memories(self, member: Member) -> None:
        """One of two versions, another, and one that goes with a session."""
        own, key = member.own, member.credentials["full key"]
        if "session" not in own:
            context = self.services.core.registry.context_of_job(member.tenant_id, "test")
            sessions = Sessions(self.services.core.database, self.services.core.clock).for_tenant(context)
            own["session"] = sessions.create(NewSession(own["subject"])).id
        own["session's subject"] = own["subject"]
        for variant, place in (("", {}), ("", {}), ("/second", {}), ("/of session", {"session_id": own["session"]})):
            own.setdefault(f"fact{variant}", self.word("fact"))
            fact = {"text": own[f"fact{variant}"], "tags": [own["tag"]]}
            body = {"subject": own["subject"], "memories": [fact], **place}
            added = self.ask("POST /v1/memories", key, body=body)
            own[f"memory{variant}"] = added["data"][0]["memory"]["id"]

    def _bring(self, member: Member, variant: str, **more: Any) -> None:
        own = member.own
        words = {
            kind: own.setdefault(f"{kind}{variant}", self.word(kind)) for kind in ("text", "title", "source", "attribute value")
        }
        body = {
            "text": f"# {self.word('heading')}\n\n{words['text']}",
            "format": "markdown",
            "collection": own["collection name"],
            "title": words["title"],
            "source": words["source"],
            "attributes": {own["attribute key"]: words["attribute value"], own["number key"]: 7},
            **more,
        }
        new = self.ask("POST /v1/documents", member.credentials["full key"], body=body)
        own[f"document{variant}"], own[f"job{variant}"] = new["document"]["id"], new["job"]["id"]
        own[f"external id{variant}"] = new["document"]["external_id"]

    def _form(self, member: Member) -> Any:
        form = {
            "file": f"%PDF-1.4 {self.word('broken')}",
            "collection": member.own["collection name"],
            "labels": json.dumps([member.own["label"]]),
        }
        return self.ask("POST /v1/documents", member.credentials["full key"], form=form)

    def _delete(self, member: Member, variant: str) -> None:
        gone = self.ask(
            "DELETE /v1/documents/{document_id}",
            member.credentials["full key"],
            path={"document_id": member.own[f"document{variant}"]},
        )
        member.own[f"job/delete of {variant}"] = gone["job"]["id"]

    def _found_in_sql(self, member: Member) -> None:
        """Names that no route shows, which nobody else may learn all the more."""
        columns = {
            "document_versions": ("id", "content_blob", "text_blob"),
            "ledger": ("id",),
            "events": ("id",),
            "files": ("blob",),
        }
        with self.services.core.database.engine.connect() as connection:
            for table, names in columns.items():
                owned = SQLModel.metadata.tables[table]
                rows = connection.execute(
                    sa.select(*(owned.c[name] for name in names)).where(owned.c.tenant_id == member.tenant_id)
                )
                for number, value in enumerate(value for row in rows for value in row if value):
                    member.own[f"{table}/{number}"] = str(value)
            chunks = SQLModel.metadata.tables["chunks"]
            rows = connection.execute(
                sa.select(chunks.c.id, chunks.c.document_id).where(chunks.c.tenant_id == member.tenant_id)
            )
            for number, (chunk_id, document_id) in enumerate(rows):
                member.own[f"passage/{number}"] = str(chunk_id)
                if document_id == member.own["document"]:
                    member.own["passage"] = str(chunk_id)
        member.own["event"] = member.own["events/0"]
        member.own["earlier job"] = member.own["newest job"] = member.own["job"]
        member.own["wanted collection"] = member.own["collection name"]
        member.own["principal"], member.own["path"] = member.own["key"], member.own["document"]
        member.own["etag"] = f'"{member.own["document"]}.1"'

    def _later(self, member: Member) -> None:
        """What stays unfinished: a queued document and one whose deletion waits. And where its lists go on."""
        self._bring(member, "/deleted", labels=[member.own["label"]])
        self.run_jobs()
        self._delete(member, "/deleted")
        self._bring(member, "/queued", labels=[member.own["label"]])
        for operation in OPERATIONS:
            if operation.takes.get("query.after") == "cursor":
                values = self.good(operation, member)
                values.setdefault("query", {})["limit"] = "1"
                operates = operation.scope == "operate"
                page = self.ask(operation.name, self.operator if operates else member.credentials["full key"], **values)
                member.own[f"cursor/{operation}"] = page["next"]
                member.own.setdefault("cursor", page["next"])

    def run_jobs(self) -> None:
        self._worker.run(self.services.documents.queue)  # type: ignore[arg-type]

    def user(self, member: Member, **claims: Any) -> str:
        """Of the identity provider; with all scopes, unless the claims say otherwise."""
        said = {"tenant": member.own["tenant/name"], "sub": member.own["subject"], "scope": ALL_SCOPES, "exp": FAR, **claims}
        return f"Bearer {self._provider.token(**said)}"

    # --- credentials that are none

    def unknown_key(self) -> str:
        return f"Bearer {make_secret(new_id('key'))}"

    def wrong_secret(self, member: Member) -> str:
        return f"Bearer {make_secret(member.own['key'])}"

    def token(self, tenant_id: str, *, hours_ago: int = 0, genuine: bool = True) -> str:
        signing_key = self.services.core.vault.derive("tokens") if genuine else bytes(32)
        signer = TokenSigner(signing_key, lambda: system_clock() - hours_ago * 3_600_000)
        wish = Wish(TENANT_SCOPES, 3600)
        return f"Bearer {signer.issue(tenant_id, key_id=key_id_of(_bare(self.operator)), wish=wish)[0]}"


def _bare(credential: str) -> str:
    return credential.partition(" ")[2]


def filled(parts: Mapping[str, Any], places: Mapping[str, str]) -> Values:
    """A copy of the parts with a value at each place, as `body.filter.key` or `body.labels.0`."""
    values: Values = json.loads(json.dumps(parts))
    for place, value in places.items():
        *way, last = place.split(".")
        inner: Any = values
        for step in way:
            inner = inner[int(step)] if isinstance(inner, list) else inner.setdefault(step, {})
        if isinstance(inner, list):
            inner[int(last)] = value
        else:
            inner[last] = value
    return values


@contextmanager
def made(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[World]:
    cache, log = RewoundCache(), Lines()
    logging.getLogger().addHandler(log)
    patch.setattr(logging.getLogger(), "level", logging.INFO)
    with served_engine(folder) as engine, identity_provider() as provider:
        for name, stand_in in {
            "DurableQueue": InlineQueue,
            "DurableWorker": InlineWorker,
            "DiskVectorCache": lambda *_, **__: cache,
            "build_store": lambda *_, **__: engine,
        }.items():
            for module in (wiring, wiring_api, wiring_worker):
                if hasattr(module, name):
                    patch.setattr(module, name, stand_in)
        settings = Settings(
            data_dir=folder / "data",
            embedding_runtime="hash",
            requests_per_second=1_000_000,
            bad_keys_per_minute=1_000_000,
            max_document_bytes=65_536,
            oidc_issuer=provider.issuer,
            oidc_audience=AUDIENCE,
            oidc_scopes_claim="scope",
            oidc_labels_claim="groups",
            oidc_collections_claim="rooms",
            oidc_default_labels=("*",),
            oidc_default_collections=("*",),
            result_cache_mb=0,  # of two calls that ask the same the second runs fewer statements
        )
        services, worker = build_api(settings), build_worker(settings, "worker")
        world = World(folder, services, worker.worker, cache, log.lines, provider)  # type: ignore[arg-type]
        try:
            yield world
        finally:
            world.door.close()
            worker.close()
            services.close()
            logging.getLogger().removeHandler(log)
