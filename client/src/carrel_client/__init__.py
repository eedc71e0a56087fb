"""Python client of Carrel.

from carrel_client import Carrel

carrel = Carrel(api_key="carrel_key_…")
carrel.documents.create(text="Loans last four weeks.", title="Rules").wait()
print(carrel.query("how long may I keep a book?").passages[0].text)
"""

from carrel_client.client import Admin, Carrel, Collections, Documents, Keys, Tenants
from carrel_client.errors import (
    APIError,
    AuthenticationError,
    BudgetExhaustedError,
    CarrelClientError,
    ConflictError,
    InvalidRequestError,
    JobFailedError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServiceUnavailableError,
    TransportError,
)
from carrel_client.jobs import Events, Jobs
from carrel_client.models import (
    CacheHoldings,
    Collection,
    Document,
    Estimate,
    Event,
    Job,
    Key,
    NewKey,
    Passage,
    Placement,
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
    "NewKey",
    "NotFoundError",
    "Passage",
    "PermissionDeniedError",
    "Placement",
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
]
