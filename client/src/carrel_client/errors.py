"""What can go wrong, by type.

CarrelClientError
├── TransportError            no answer: connection refused, timed out, cut off
├── JobFailedError            `wait` ended on a job that failed or was cancelled
├── BulkStoppedError          a bulk stream ended before its end
├── WebhookVerificationError  `webhooks.verify` was given a message that is not genuine
└── APIError                  the service answered with a problem
    ├── AuthenticationError (401)    ├── ConflictError (409)
    ├── BudgetExhaustedError (402)   ├── InvalidRequestError (400, 413, 415, 422)
    ├── PermissionDeniedError (403)  ├── RateLimitError (429)
    ├── NotFoundError (404)          └── ServiceUnavailableError (5xx)
    └── VersionConflictError (412)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class CarrelClientError(Exception):
    pass


class TransportError(CarrelClientError):
    pass


class JobFailedError(CarrelClientError):
    def __init__(self, job_id: str, state: str, code: str | None, detail: str | None) -> None:
        super().__init__(f"job {job_id} {state}: {detail or code or 'no reason given'}")
        self.job_id, self.state, self.code, self.detail = job_id, state, code, detail


class WebhookVerificationError(CarrelClientError):
    """The message is not the service's, was changed on its way, or is too old."""


class BulkStoppedError(CarrelClientError):
    """`next_line` is the first that was not taken in: too many were refused, or the service could not go on for too long."""

    def __init__(self, next_line: int | None, problem: Mapping[str, Any]) -> None:
        self.next_line, self.code = next_line, str(problem.get("code", "unknown"))
        self.detail = str(problem.get("detail") or self.code)
        super().__init__(f"stopped before line {next_line}: {self.detail}")


class APIError(CarrelClientError):
    """`code` is stable, `detail` is for people; quote `request_id` when asking for help."""

    def __init__(self, status: int, problem: Mapping[str, Any], request_id: str | None) -> None:
        self.status = status
        self.code = str(problem.get("code", "unknown"))
        self.detail = str(problem.get("detail") or problem.get("title") or "")
        self.field = problem.get("field")
        self.limit = problem.get("limit")
        self.retryable = bool(problem.get("retryable", False))
        self.request_id = request_id
        self.retry_after: str | None = None  #: of a refusal that is retryable, as the service said
        where = f" ({self.field})" if self.field else ""
        super().__init__(f"{status} {self.code}: {self.detail}{where} [request {request_id}]")


class AuthenticationError(APIError):
    pass


class BudgetExhaustedError(APIError):
    pass


class PermissionDeniedError(APIError):
    pass


class NotFoundError(APIError):
    pass


class ConflictError(APIError):
    pass


class InvalidRequestError(APIError):
    pass


class VersionConflictError(APIError):
    """The document is not at the version that `if_match` names; `etag` is what it has now, None if there is none."""

    def __init__(self, status: int, problem: Mapping[str, Any], request_id: str | None) -> None:
        super().__init__(status, problem, request_id)
        self.etag = problem.get("etag")


class RateLimitError(APIError):
    pass


class ServiceUnavailableError(APIError):
    pass


_BY_STATUS: dict[int, type[APIError]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    402: BudgetExhaustedError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    412: VersionConflictError,
    413: InvalidRequestError,
    415: InvalidRequestError,
    422: InvalidRequestError,
    429: RateLimitError,
}


def error_for(status: int, problem: Mapping[str, Any], request_id: str | None) -> APIError:
    kind = _BY_STATUS.get(status, ServiceUnavailableError if status >= 500 else APIError)
    return kind(status, problem, request_id)
