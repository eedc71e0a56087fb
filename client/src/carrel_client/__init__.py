"""Python client of Carrel.

from carrel_client import Carrel

carrel = Carrel(api_key="carrel_key_…")
carrel.documents.create(text="Loans last four weeks.", title="Rules").wait()
print(carrel.query("how long may I keep a book?").passages[0].text)
"""

from carrel_client.client import Admin, Carrel, Keys, Tenants
from carrel_client.collections import Collections
from carrel_client.documents import Documents
from carrel_client.errors import (
    APIError,
    AuthenticationError,
    BudgetExhaustedError,
    BulkStoppedError,
    CarrelClientError,
    ConflictError,
    InvalidRequestError,
    JobFailedError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServiceUnavailableError,
    TransportError,
    VersionConflictError,
)
from carrel_client.jobs import Events, Jobs
from carrel_client.models import (
    BulkResult,
    CacheHoldings,
    Collection,
    Document,
    Estimate,
    Event,
    Job,
    Key,
    NearDuplicate,
    NewKey,
    Passage,
    Profile,
    Progress,
    QueryResult,
    Tenant,
    Token,
    Usage,
    UsageAmounts,
    UsageDay,
)

__all__ = [
    "APIError",
    "Admin",
    "AuthenticationError",
    "BudgetExhaustedError",
    "BulkResult",
    "BulkStoppedError",
    "CacheHoldings",
    "Carrel",
    "CarrelClientError",
    "Collection",
    "Collections",
    "ConflictError",
    "Document",
    "Documents",
    "Estimate",
    "Event",
    "Events",
    "InvalidRequestError",
    "Job",
    "JobFailedError",
    "Jobs",
    "Key",
    "Keys",
    "NearDuplicate",
    "NewKey",
    "NotFoundError",
    "Passage",
    "PermissionDeniedError",
    "Profile",
    "Progress",
    "QueryResult",
    "RateLimitError",
    "ServiceUnavailableError",
    "Tenant",
    "Tenants",
    "Token",
    "TransportError",
    "Usage",
    "UsageAmounts",
    "UsageDay",
    "VersionConflictError",
]
