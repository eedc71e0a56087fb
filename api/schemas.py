"""The wire's shapes. Inputs refuse unknown fields; outputs are what `carrel_client.models` reads."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.collection_schemas import ChunkingOut
from api.explain_schemas import ExplanationOut
from api.job_schemas import JobOut
from config.clock import isoformat
from config.errors import storable
from config.profiles import STANDARD
from config.settings import MAX_TOKENS
from ingestion.catalogue import Shown
from rag.retrieval.question import MAX_COLLECTIONS, MAX_QUESTION_CHARS, MAX_TOP_K, Answer, Mode, Passage
from rag.tokens import count_tokens
from tenants.context import Scope
from tenants.tables import ApiKey, Tenant

T = TypeVar("T")


def _storable(text: str) -> str:
    if not storable(text):
        raise ValueError("NUL characters and lone surrogates are not allowed")
    return text


#: Text that every database can store.
Text = Annotated[str, AfterValidator(_storable)]


class Input(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DocumentIn(Input):
    """A document as text or by its URL, one of the two. Files go to the same path as multipart/form-data with a `file` part."""

    text: Text | None = Field(None, description="Kept exactly: passages cite it by character offsets.")
    url: Text | None = Field(
        None, description="Where a job fetches the document: http or https, at a public address. Instead of `text`."
    )
    format: Literal["text", "markdown"] = Field("text", description="`markdown` splits along headings and cites them.")
    collection: Text = "default"
    external_id: Text | None = Field(
        None,
        description="Your name for the document: bringing it again replaces it. Without one, the content is its name, "
        "or the URL.",
    )
    title: Text | None = None
    source: Text | None = Field(None, description="Where it came from, as you want it cited; a URL or a path.")
    attributes: dict[Text, Text | float | bool] = Field(
        default_factory=dict, description="Up to 16 values to filter by.", examples=[{"year": 2026, "kind": "policy"}]
    )
    labels: list[Text] = Field(
        default_factory=list, description="Readers must hold every one of these; keys are made with labels."
    )

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"text": "Loans last four weeks.", "title": "Rules", "external_id": "rules"}]},
    )


class CollectionIn(Input):
    name: Text = Field(examples=["handbook"])
    profile: Text = Field(STANDARD, description="How its documents are processed: one of `GET /v1/profiles`.")


class CollectionPatch(Input):
    profile: Text = Field(description="For documents that are brought from now on; the others keep their chunks.")


class QueryIn(Input):
    query: Text = Field(min_length=1, max_length=MAX_QUESTION_CHARS, examples=["how long may I keep a book?"])
    collections: list[Text] = Field(default_factory=lambda: ["default"], min_length=1, max_length=MAX_COLLECTIONS)
    top_k: int = Field(10, ge=1, le=MAX_TOP_K)
    filter: dict[str, Any] | None = Field(
        None,
        description="Over attributes: `key`, `op` (eq ne in nin exists gt gte lt lte), `value`; `and`, `or`, `not` nest.",
        examples=[{"op": "and", "filters": [{"key": "year", "op": "gte", "value": 2020}]}],
    )
    mode: Mode = Field("hybrid", description="By meaning and by words, or by one of them: `lexical` embeds nothing.")
    explain: bool = Field(False, description="Say how the answer came to be.")


class TenantIn(Input):
    name: Text = Field(examples=["acme"])
    monthly_tokens: int | None = Field(None, ge=0, le=MAX_TOKENS, description="Embedding tokens a month; none is no limit.")


class TenantPatch(Input):
    monthly_tokens: int | None = Field(ge=0, le=MAX_TOKENS)


class KeyIn(Input):
    tenant: Text = Field(description="Id or name of the tenant.")
    name: Text
    scopes: list[Scope] = Field(examples=[["query", "ingest"]])
    collections: list[Text] | None = Field(None, description="Names the key is confined to; none is all.")
    labels: list[Text] | None = Field(None, description="Labels the key holds; none is all.")


class TokenIn(Input):
    scopes: list[Scope]
    lifetime_seconds: int = Field(900, ge=1, le=3600)


class Page(BaseModel, Generic[T]):
    data: list[T]
    next: str | None = Field(description="Pass as `after` for the next page; null at the end.")


class DocumentOut(BaseModel):
    id: str
    external_id: str
    collection: str
    state: Literal["queued", "live", "failed", "cancelled", "superseded"]
    version: int
    title: str
    source: str | None
    media_type: str
    attributes: dict[str, Any]
    labels: list[str]
    bytes: int
    chars: int
    pages: int
    profile: str = Field(description="Under which this version was brought.")
    chunking: ChunkingOut
    created_at: str

    @classmethod
    def of(cls, shown: Shown) -> DocumentOut:
        document, version = shown.document, shown.version
        return cls.model_validate(
            {
                **version.model_dump(),
                "id": document.id,
                "external_id": document.external_id,
                "collection": shown.collection,
                "version": version.number,
                "created_at": isoformat(document.created_at),
            }
        )


class SubmittedOut(BaseModel):
    document: DocumentOut
    job: JobOut | None = Field(description="The work to wait for; null when this content is live already.")


class TextOut(BaseModel):
    document_id: str
    version: int
    text: str


class DeletedOut(BaseModel):
    id: str
    deleted: Literal[True] = True
    job: JobOut


class PassageOut(BaseModel):
    """`text` is exactly characters `start` to `end` of the document's text."""

    id: str
    score: float
    text: str
    start: int
    end: int
    document_id: str
    external_id: str
    version: int
    collection: str
    title: str
    source: str | None
    headings: list[str]
    first_page: int | None
    last_page: int | None
    attributes: dict[str, Any]
    tokens: int = Field(description="Tokens of the text for a language model (o200k).")

    @classmethod
    def of(cls, passage: Passage) -> PassageOut:
        fields = {name: getattr(passage, name) for name in cls.model_fields if name not in ("tokens", "headings")}
        return cls(**fields, headings=list(passage.headings), tokens=count_tokens(passage.text))


class QueryUsage(BaseModel):
    embedding_tokens: int = Field(description="Charged for embedding the query.")
    cached_tokens: int
    context_tokens: int = Field(description="Tokens of all passages together (o200k).")


class QueryOut(BaseModel):
    passages: list[PassageOut]
    usage: QueryUsage
    timings_ms: dict[str, float] = Field(
        description="`collections`, `embedding` and `search`, one after the other; `model` is the model's part of `embedding`."
    )
    degraded: list[str] = Field(description="Legs that could not take part: `dense`, `lexical`.")
    explanation: ExplanationOut | None = Field(description="With `explain`.")

    @classmethod
    def of(cls, answer: Answer) -> QueryOut:
        passages = [PassageOut.of(passage) for passage in answer.passages]
        total = sum(passage.tokens for passage in passages)
        usage = QueryUsage(embedding_tokens=answer.charged, cached_tokens=answer.cached, context_tokens=total)
        return cls(
            passages=passages,
            usage=usage,
            timings_ms=dict(answer.timings_ms),
            degraded=list(answer.degraded),
            explanation=None if answer.explanation is None else ExplanationOut.of(answer.explanation),
        )


class TenantOut(BaseModel):
    id: str
    name: str
    monthly_tokens: int | None
    created_at: str

    @classmethod
    def of(cls, tenant: Tenant) -> TenantOut:
        fields = tenant.model_dump(include={"id", "name", "monthly_tokens"})
        return cls(**fields, created_at=isoformat(tenant.created_at))


class KeyOut(BaseModel):
    id: str
    tenant_id: str | None
    name: str
    scopes: list[str]
    collections: list[str] | None
    labels: list[str] | None
    created_at: str
    revoked_at: str | None

    @classmethod
    def fields_of(cls, key: ApiKey) -> dict[str, Any]:
        times = {
            "created_at": isoformat(key.created_at),
            "revoked_at": None if key.revoked_at is None else isoformat(key.revoked_at),
        }
        return {**key.model_dump(exclude={"secret_sha256"}), **times}

    @classmethod
    def of(cls, key: ApiKey) -> KeyOut:
        return cls(**cls.fields_of(key))


class NewKeyOut(KeyOut):
    secret: str = Field(description="The key itself. It is shown this once; only a hash is kept.")


class TokenOut(BaseModel):
    token: str
    expires_at: str
    scopes: list[str]


class Part(BaseModel):
    ok: bool
    detail: str
    advice: str | None = None


class ReadinessOut(BaseModel):
    ready: bool
    version: str
    parts: dict[str, Part]
