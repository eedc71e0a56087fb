"""Python client of Carrel, for threads (`Carrel`) and for event loops (`AsyncCarrel`).

from carrel_client import Carrel

carrel = Carrel(api_key="carrel_key_…")
carrel.documents.create(text="Loans last four weeks.", title="Rules").wait()
print(carrel.query("how long may I keep a book?").passages[0].text)
"""

from carrel_client._async.admin import AsyncAdmin, AsyncKeys
from carrel_client._async.audit import AsyncAdminAudit, AsyncAudit, AsyncOversight
from carrel_client._async.budgets import AsyncBudgets
from carrel_client._async.client import AsyncCarrel
from carrel_client._async.collections import AsyncCollections
from carrel_client._async.documents import AsyncDocuments, AsyncSubmitted
from carrel_client._async.evaluation import AsyncFeedbackOf, AsyncQuestionSets
from carrel_client._async.jobs import AsyncEvents, AsyncJobs
from carrel_client._async.tenants import AsyncTenants
from carrel_client._async.webhooks import AsyncWebhooks
from carrel_client._sync.admin import Admin, Keys
from carrel_client._sync.audit import AdminAudit, Audit, Oversight
from carrel_client._sync.budgets import Budgets
from carrel_client._sync.client import Carrel
from carrel_client._sync.collections import Collections
from carrel_client._sync.documents import Documents, Submitted
from carrel_client._sync.evaluation import FeedbackOf, QuestionSets
from carrel_client._sync.jobs import Events, Jobs
from carrel_client._sync.tenants import Tenants
from carrel_client._sync.webhooks import Webhooks
from carrel_client.answers import Citation, Context, Group, Passage, PassageView, QueryResult
from carrel_client.audit import AuditEntry, NoisyTenant, RecentSums, Statistics, TenantPassages
from carrel_client.documents import Uploaded, UploadProgress
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
    WebhookVerificationError,
)
from carrel_client.evaluation import Feedback, QuestionSet, Tunings, TuningVersion
from carrel_client.models import (
    Budget,
    BudgetLimit,
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
    UsageGroup,
)
from carrel_client.tenants import ImportedTenant, Limit, Limits, Plan, TenantDeletion
from carrel_client.webhooks import Delivery, NewWebhook, Webhook

__all__ = [
    "APIError",
    "Admin",
    "AdminAudit",
    "AsyncAdmin",
    "AsyncAdminAudit",
    "AsyncAudit",
    "AsyncBudgets",
    "AsyncCarrel",
    "AsyncCollections",
    "AsyncDocuments",
    "AsyncEvents",
    "AsyncFeedbackOf",
    "AsyncJobs",
    "AsyncKeys",
    "AsyncOversight",
    "AsyncQuestionSets",
    "AsyncSubmitted",
    "AsyncTenants",
    "AsyncWebhooks",
    "Audit",
    "AuditEntry",
    "AuthenticationError",
    "Budget",
    "BudgetExhaustedError",
    "BudgetLimit",
    "Budgets",
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
    "Delivery",
    "Document",
    "Documents",
    "Estimate",
    "Event",
    "Events",
    "Feedback",
    "FeedbackOf",
    "Group",
    "ImportedTenant",
    "InvalidRequestError",
    "Job",
    "JobFailedError",
    "Jobs",
    "Key",
    "Keys",
    "Limit",
    "Limits",
    "NearDuplicate",
    "NewKey",
    "NewWebhook",
    "NoisyTenant",
    "NotFoundError",
    "Oversight",
    "Passage",
    "PassageView",
    "PermissionDeniedError",
    "Placement",
    "Plan",
    "Profile",
    "Progress",
    "QueryResult",
    "QuestionSet",
    "QuestionSets",
    "RateLimitError",
    "RecentSums",
    "ServiceUnavailableError",
    "Statistics",
    "Submitted",
    "Tenant",
    "TenantDeletion",
    "TenantPassages",
    "Tenants",
    "Token",
    "TransportError",
    "TuningVersion",
    "Tunings",
    "UploadProgress",
    "Uploaded",
    "Usage",
    "UsageAmounts",
    "UsageDay",
    "UsageGroup",
    "VersionConflictError",
    "Webhook",
    "WebhookVerificationError",
    "Webhooks",
]
