"""The one tree of errors that users meet. Code raises these; one handler renders them as RFC 9457 problem details.

CarrelError
├── InvalidInput (422)         ├── Unauthenticated (401)      ├── Unavailable (503, retryable)
│   ├── TooLarge (413)         ├── Forbidden (403)            │   ├── EngineUnavailable, ContentDamaged
│   ├── UnsupportedMedia (415) ├── NotFound (404)             │   ├── ModelUnavailable, Overloaded, Shedding
│   ├── UrlRefused             ├── Conflict (409)             │   └── SiteUnavailable (of a job)
│   ├── StoreExpired           ├── SpaceMismatch (422)        ├── UnreadableDocument (422, of a job or dry run)
│   └── IdempotencyKeyReused   │                              │
│                              ├── QuotaExceeded (403), NotInPlan (403), TenantSuspended (403)
├── BudgetExhausted (402)      ├── FetchFailed (422, a job's) └── SetupError (start-up: what to do next)
├── RateLimited (429)          ├── IdempotencyInProgress (409, retryable)
│   └── Busy                   │
├── QueueFull (429)            ├── StorageFull (507, retryable)
├── TenantSuspended (403)      │
├── TooSlow (408, retryable)   ├── DocumentParked, DependencyFailed (422, a job's)
├── ProviderRefused (502)      └── VersionConflict (412)
"""

from __future__ import annotations

from typing import Any, ClassVar


def storable(text: str) -> bool:
    """Whether both databases can keep the text: no NUL, no lone surrogates."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


SESSION_BUDGETS = ("budget_tokens", "budget_micro_usd")


class CarrelError(Exception):
    """Something the caller can understand and act on.

    `field` names the offending input, `limit` the bound it broke; both reach the caller.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Something failed inside the service"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        detail: str,
        *,
        field: str | None = None,
        limit: int | float | str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.limit = limit
        self.retry_after_s = retry_after_s


class InvalidInput(CarrelError):
    status, code, title = 422, "invalid_input", "The request is not valid"


class TooLarge(InvalidInput):
    status, code, title = 413, "too_large", "The input is larger than allowed"


class UnsupportedMedia(InvalidInput):
    status, code, title = 415, "unsupported_media_type", "This kind of content cannot be read"


class UrlRefused(InvalidInput):
    """Of a URL whose form is refused; of a job too, for where the name or a redirect led."""

    code, title = "url_refused", "This URL is not fetched"


class IdempotencyKeyReused(InvalidInput):
    code, title = "idempotency_key_reused", "The idempotency key stands for another request"


class StoreExpired(InvalidInput):
    """Of a vector store that its expiry policy has ended: its documents are being removed."""

    code, title = "vector_store_expired", "The vector store has expired"


class Unauthenticated(CarrelError):
    status, code, title = 401, "unauthenticated", "A valid key is required"


class Forbidden(CarrelError):
    status, code, title = 403, "forbidden", "The key does not allow this"


class NotFound(CarrelError):
    """Raised alike for what does not exist and for what belongs to somebody else."""

    status, code, title = 404, "not_found", "There is no such thing"


class Conflict(CarrelError):
    status, code, title = 409, "conflict", "The thing already exists or has changed"


class VersionConflict(CarrelError):
    """A precondition of the request does not hold. `etag` is what the document has now; None: there is no document."""

    status, code, title = 412, "version_conflict", "The document is at another version"

    def __init__(self, detail: str, *, etag: str | None = None, **more: Any) -> None:
        super().__init__(detail, **more)
        self.etag = etag


class IdempotencyInProgress(CarrelError):
    """The same request is being worked on; repeated a little later, it gets that one's result."""

    status, code, title, retryable = 409, "idempotency_in_progress", "A request with this key is still running", True


class SpaceMismatch(CarrelError):
    status, code, title = 422, "space_mismatch", "The collection was embedded by another model"


class BudgetExhausted(CarrelError):
    status, code, title = 402, "budget_exhausted", "The tenant's token budget does not cover this"

    @property
    def of_session(self) -> bool:
        """A session's own budget, which concerns nobody else of the tenant."""
        return self.field in SESSION_BUDGETS


class QuotaExceeded(CarrelError):
    """`field` names what there would be too much of, `limit` how much the plan allows. A job's outcome too."""

    status, code, title = 403, "quota_exceeded", "The tenant's plan has no room for this"


class NotInPlan(CarrelError):
    status, code, title = 403, "not_in_plan", "The tenant's plan does not include this"


class TenantSuspended(CarrelError):
    status, code, title = 403, "tenant_suspended", "The operator has suspended the tenant"


class RateLimited(CarrelError):
    status, code, title, retryable = 429, "rate_limited", "Too many requests", True


class Busy(RateLimited):
    """So many requests of the tenant are worked on and wait that this one does not join them."""

    code, title = "busy", "Too many requests at once"


class QueueFull(CarrelError):
    """So many of the tenant's jobs wait that it may add none; `retry_after_s` is reckoned from the pace."""

    status, code, title, retryable = 429, "queue_full", "Too many jobs of the tenant wait", True


class StorageFull(CarrelError):
    """The disk has room for what was accepted, and for nothing new."""

    status, code, title, retryable = 507, "storage_full", "The disk has no room for new documents", True


class TooSlow(CarrelError):
    """A caller that holds a stream open and sends nothing."""

    status, code, title, retryable = 408, "too_slow", "The request came too slowly", True


class UnreadableDocument(CarrelError):
    """A document whose content cannot become text: a job's outcome, or a dry run's."""

    status, code, title = 422, "unreadable_document", "The document could not be read"


class DocumentParked(UnreadableDocument):
    """A document that ends whatever reads it: a job's outcome. Nothing tries it again until somebody asks for that."""

    code, title = "document_parked", "Reading the document ended its reader"


class DependencyFailed(CarrelError):
    """A job that another was to run after failed or was cancelled: a job's outcome."""

    status, code, title = 422, "dependency_failed", "A job before this one did not succeed"


class FetchFailed(CarrelError):
    """What a site answered cannot be taken: a job's outcome."""

    status, code, title = 422, "fetch_failed", "The URL could not be fetched"


class Unavailable(CarrelError):
    status, code, title, retryable = 503, "unavailable", "A part of the service is not available", True


class EngineUnavailable(Unavailable):
    code, title = "engine_unavailable", "The vector engine does not answer"


class ContentDamaged(Unavailable):
    """What was kept is not what was written: it can be read again when the database was restored."""

    code, title, retryable = "content_damaged", "Something that was kept is damaged", False


class ModelUnavailable(Unavailable):
    code, title = "model_unavailable", "The embedding model is not loaded"


class Overloaded(Unavailable):
    """So many jobs of all tenants wait that nobody may add one."""

    code, title = "overloaded", "Too many jobs wait"


class Shedding(Unavailable):
    """So many requests of all tenants wait that this one, of the lowest priority, is let go."""

    code, title = "shedding_load", "Too many requests wait"


class SiteUnavailable(Unavailable):
    """A site that may answer later; `retry_after_s` is what it asked for. A job's outcome, after some tries."""

    code, title = "site_unavailable", "The site does not answer"


class ProviderRefused(CarrelError):
    """A provider outside does not accept what it was sent, and would not the next time."""

    status, code, title = 502, "provider_refused", "A provider outside refused the request"


class SetupError(CarrelError):
    """The service cannot start as configured; the message says what to do."""

    code, title = "setup_error", "The service cannot start"


class DataDirectoryInUse(SetupError):
    code, title = "data_directory_in_use", "Another service uses this data directory"


class LeaseLost(BaseException):
    """Another worker took over what this one was doing. Not an error of anybody's: it passes every `except Exception`,
    because whoever has lost a job may neither record an outcome nor clean up for it.
    """
