"""Python client of Carrel.

from carrel_client import Carrel

carrel = Carrel(api_key="carrel_key_…")
carrel.documents.create(text="Loans last four weeks.", title="Rules").wait()
print(carrel.query("how long may I keep a book?").passages[0].text)
"""

from carrel_client.answers import Citation, Context, Group, Passage, PassageView, QueryResult
from carrel_client.audit import (
    AdminAudit,
    Audit,
    AuditEntry,
    NoisyTenant,
    Oversight,
    RecentSums,
    Statistics,
    TenantPassages,
)
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
from carrel_client.evaluation import Feedback, FeedbackOf, QuestionSet, QuestionSets, Tunings, TuningVersion
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
    Placement,
    Profile,
    Progress,
    Tenant,
    Token,
    Usage,
    UsageAmounts,
    UsageDay,
)

__all__ = [
    "APIError",
    "Admin",
    "AdminAudit",
    "Audit",
    "AuditEntry",
    "AuthenticationError",
    "BudgetExhaustedError",
    "BulkResult",
    "BulkStoppedError",
    "CacheHoldings",
    "Carrel",
    "CarrelClientError",
    "Citation",
    "Collection",
    "Collections",
    "ConflictError",
    "Context",
    "Document",
    "Documents",
    "Estimate",
    "Event",
    "Events",
    "Feedback",
    "FeedbackOf",
    "Group",
    "InvalidRequestError",
    "Job",
    "JobFailedError",
    "Jobs",
    "Key",
    "Keys",
    "NearDuplicate",
    "NewKey",
    "NoisyTenant",
    "NotFoundError",
    "Oversight",
    "Passage",
    "PassageView",
    "PermissionDeniedError",
    "Placement",
    "Profile",
    "Progress",
    "QueryResult",
    "QuestionSet",
    "QuestionSets",
    "RateLimitError",
    "RecentSums",
    "ServiceUnavailableError",
    "Statistics",
    "Tenant",
    "TenantPassages",
    "Tenants",
    "Token",
    "TransportError",
    "TuningVersion",
    "Tunings",
    "Usage",
    "UsageAmounts",
    "UsageDay",
    "VersionConflictError",
]
