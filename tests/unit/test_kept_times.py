"""Times that are kept: whatever zone they come in, they can be shown, or they are refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from api.schemas.documents import KeyIn
from api.schemas.memories import FactIn
from api.schemas.sessions import TurnIn
from api.schemas.tenants import OverrideIn
from api.schemas.times import unix_ms
from api.schemas.usage import BudgetIn
from config.clock import isoformat

KEPT: tuple[tuple[type[BaseModel], str, dict[str, Any]], ...] = (
    (KeyIn, "expires_at", {"tenant": "ash", "name": "k", "scopes": ["query"]}),
    (FactIn, "valid_to", {"text": "x"}),
    (TurnIn, "said_at", {"role": "user", "content": "x"}),
    (OverrideIn, "expires_at", {"value": 1}),
    (BudgetIn, "until", {}),
)


@pytest.mark.parametrize(("model", "name", "given"), KEPT, ids=[f"{model.__name__}.{name}" for model, name, _ in KEPT])
def test_a_time_is_kept_if_it_can_be_shown(model: type[BaseModel], name: str, given: dict[str, Any]) -> None:
    for last in ("9999-12-30T23:59:59.999Z", "9999-12-31T11:59:59+12:01", "1970-01-01T00:00:00Z"):
        shown = unix_ms(getattr(model.model_validate(given | {name: last}), name))
        assert shown is not None
        assert isoformat(shown)[:4] in ("9999", "1970")
    for beyond in ("9999-12-31T23:59:59-12:00", "9999-12-31T00:00:00Z", "1969-12-31T23:59:59Z", "2026-03-10T12:00:00"):
        with pytest.raises(ValidationError):
            model.model_validate(given | {name: beyond})
