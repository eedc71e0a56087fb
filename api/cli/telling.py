"""What commands and processes tell programs: a line when the service is ready, a line and a status when it cannot be.

Imports no library: the supervisor has it in memory for as long as the service runs.
"""

from __future__ import annotations

import json
import sys
from typing import NoReturn

from config.errors import CarrelError, SetupError

EXIT_SETUP = 78  # it cannot start as configured: restarting would not help


def fail(error: Exception, *, as_json: bool) -> NoReturn:
    detail = error.detail if isinstance(error, CarrelError) else str(error)
    code = getattr(error, "code", type(error).__name__)
    print(json.dumps({"error": {"code": code, "detail": detail}}) if as_json else f"carrel: {detail}", file=sys.stderr)
    sys.exit(EXIT_SETUP if isinstance(error, SetupError) else 1)


def tell_ready(url: str) -> None:
    print(json.dumps({"ready": True, "url": url}), flush=True)
