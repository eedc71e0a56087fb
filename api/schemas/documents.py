"""The wire's shapes. Inputs refuse unknown fields; outputs are what `carrel_client.models` reads."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.schemas.collections import ChunkingOut, Duplicates
from api.schemas.jobs import AfterPolicy, JobOut
from api.schemas.times import Moment
from config.clock import isoformat
from config.errors import storable
from config.profiles import STANDARD
from ingestion.intake.catalogue import Shown
from ingestion.jobs.jobs import MAX_RETRIED
from ingestion.jobs.rows import MAX_AFTER
from rag.attributes import MAX_DECLARED
from tenants.context import Scope
from tenants.identity.keys import MAX_OVERLAP_S
from tenants.tables import ApiKey

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

    after: list[Text] = Field(
        default_factory=list, max_length=MAX_AFTER, description="Jobs that must end before this one begins."
    )
    after_policy: AfterPolicy = Field(
        "all_succeeded", description="`any_end` runs the job however those ended; else it fails if one did not succeed."
    )

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"text": "Loans last four weeks.", "title": "Rules", "external_id": "rules"}]},
    )


MAX_KEPT_DAYS = 3650
AttributeKind = Literal["string", "number", "bool", "datetime"]


class CollectionIn(Input):
    name: Text = Field(examples=["handbook"])
    profile: Text = Field(STANDARD, description="How its documents are processed: one of `GET /v1/profiles`.")
    near_duplicates: Duplicates = Field(
        "keep", description="A document that nearly repeats another is kept, linked to it, or skipped."
    )
    near_threshold: float = Field(0.9, ge=0.8, le=1, description="From which similarity on; 1 is equal.")
    semantic_cache: bool = Field(
        False, description="Answer a question as another one was that is near to it. Near is not equal: mind the risk."
    )
    semantic_threshold: float = Field(0.95, ge=0.9, le=1, description="From which cosine of the two questions on.")
    keep_versions_days: int = Field(
        0, ge=0, le=MAX_KEPT_DAYS, description="How long replaced versions are kept, for questions `as_of` then."
    )
    attributes: dict[Text, AttributeKind] = Field(
        default_factory=dict,
        max_length=MAX_DECLARED,
        description="Kinds of its documents' attributes: string, number, bool or datetime. Others are inferred.",
        examples=[{"year": "number", "published": "datetime"}],
    )


class CollectionPatch(Input):
    """What is given holds from now on; documents that were brought stay as they are."""

    profile: Text | None = Field(None, description="The others keep their chunks.")
    near_duplicates: Duplicates | None = None
    near_threshold: float | None = Field(None, ge=0.8, le=1)
    semantic_cache: bool | None = None
    semantic_threshold: float | None = Field(None, ge=0.9, le=1)
    keep_versions_days: int | None = Field(None, ge=0, le=MAX_KEPT_DAYS)
    attributes: dict[Text, AttributeKind | Literal["inferred"]] | None = Field(
        None, max_length=MAX_DECLARED, description="For these keys; `inferred` takes back what was declared."
    )


class RetryIn(Input):
    """Which dead jobs are retried."""

    collection: Text | None = None
    error: Text | None = Field(None, description="Only those that ended with this error code.")
    through: Text | None = Field(None, description="None younger than this job: what fails again meanwhile is left.")
    limit: int = Field(MAX_RETRIED, ge=1, le=MAX_RETRIED)


class KeyIn(Input):
    tenant: Text = Field(description="Id or name of the tenant.")
    name: Text
    scopes: list[Scope] = Field(examples=[["query", "ingest"]])
    collections: list[Text] | None = Field(None, description="Names the key is confined to; none is all.")
    labels: list[Text] | None = Field(None, description="Labels the key holds; none is all.")
    read_only: bool = Field(False, description="Whatever its scopes, the key changes nothing.")
    expires_at: Moment | None = Field(None, description="From then on the key is refused; none is never.")
    allowed_addresses: list[Text] | None = Field(
        None, description="Addresses and networks it may be used from; none is any.", examples=[["192.0.2.0/24"]]
    )


class KeyRotateIn(Input):
    overlap_seconds: int = Field(24 * 3600, ge=0, le=MAX_OVERLAP_S, description="How long the old key stays valid.")


class TokenIn(Input):
    scopes: list[Scope]
    lifetime_seconds: int = Field(900, ge=1, le=3600)


class SubjectTokenIn(Input):
    """Everything is within what the key has that asks."""

    subject: Text = Field(description="Your name for the end user; what belongs to another is out of the token's reach.")
    scopes: list[Scope] = Field(default_factory=lambda: [Scope.QUERY])
    collections: list[Text] | None = Field(None, description="Names the token is confined to; none is all of the key's.")
    labels: list[Text] | None = Field(None, description="Labels the token holds; none is all of the key's.")
    read_only: bool = False
    lifetime_seconds: int = Field(900, ge=1, le=3600)


class Page(BaseModel, Generic[T]):
    data: list[T]
    next: str | None = Field(description="Pass as `after` for the next page; null at the end.")


class WarningOut(BaseModel):
    code: Literal["hidden_text"]
    detail: str


class NearOut(BaseModel):
    document_id: str
    similarity: float = Field(description="Estimated, of the texts: 1 is equal.")
    linked: bool = Field(description="Whether this document has no chunks of its own and is found through the other.")


class DocumentOut(BaseModel):
    id: str
    etag: str = Field(description="Of the newest version, for `If-Match`.")
    external_id: str
    collection: str
    state: Literal["queued", "live", "failed", "cancelled", "superseded", "skipped"]
    version: int
    title: str
    source: str | None
    media_type: str
    attributes: dict[str, Any]
    labels: list[str]
    bytes: int
    chars: int
    pages: int
    warnings: list[WarningOut] = Field(description="What reading found that a user of the text should know.")
    profile: str = Field(description="Under which this version was brought.")
    chunking: ChunkingOut
    near_duplicate_of: NearOut | None = Field(description="Another document of the collection that it nearly repeats.")
    created_at: str

    @classmethod
    def of(cls, shown: Shown) -> DocumentOut:
        document, version = shown.document, shown.version
        return cls.model_validate(
            {
                **version.model_dump(),
                "id": document.id,
                "etag": shown.etag,
                "near_duplicate_of": None if shown.near is None else asdict(shown.near),
                "external_id": document.external_id,
                "collection": shown.collection,
                "version": version.number,
                "warnings": version.flags,
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
    deleted: bool = Field(description="False while the job waits for others: until then the document stays.")
    job: JobOut


class KeyOut(BaseModel):
    id: str
    tenant_id: str | None
    name: str
    scopes: list[str]
    collections: list[str] | None
    labels: list[str] | None
    read_only: bool
    allowed_addresses: list[str] | None
    replaces: str | None = Field(description="The key that it was made for by rotation.")
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None = Field(description="To the minute.")

    @classmethod
    def fields_of(cls, key: ApiKey) -> dict[str, Any]:
        moments = {name: getattr(key, name) for name in ("created_at", "expires_at", "revoked_at", "last_used_at")}
        times = {name: None if at is None else isoformat(at) for name, at in moments.items()}
        return {**key.model_dump(exclude={"secret_sha256", "changed_at"}), **times}

    @classmethod
    def of(cls, key: ApiKey) -> KeyOut:
        return cls(**cls.fields_of(key))


class NewKeyOut(KeyOut):
    secret: str = Field(description="The key itself. It is shown this once; only a hash is kept.")


class TokenOut(BaseModel):
    token: str
    expires_at: str
    scopes: list[str]


class SubjectTokenOut(TokenOut):
    subject: str


class Part(BaseModel):
    ok: bool
    detail: str
    advice: str | None = None


class ReadinessOut(BaseModel):
    ready: bool
    version: str
    parts: dict[str, Part]
