"""What commands and processes tell programs: a line when the service is ready, a line and a status when it cannot be.

Imports no library: the supervisor has it in memory for as long as the service runs.
"""

from __future__ import annotations

import json
import sys
from typing import NoReturn

from config.errors import CarrelError, SetupError

EXIT_SETUP = 78  # it cannot start as configured: restarting would not help

#: What moves a terminal's cursor, calls its commands or turns text around; not what ends lines or stands between words.
_COMMANDS = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)])
_COMMANDS |= dict.fromkeys(range(0xD800, 0xE000))  # halves of letters, that no terminal can be sent


def harmless(text: str) -> str:
    """What others wrote, as a terminal may be given it."""
    return text.translate(_COMMANDS)


def fail(error: Exception, *, as_json: bool) -> NoReturn:
    detail = error.detail if isinstance(error, CarrelError) else str(error)
    told = {"code": getattr(error, "code", type(error).__name__), "detail": detail}
    print(json.dumps({"error": told}) if as_json else f"carrel: {harmless(detail)}", file=sys.stderr)
    sys.exit(EXIT_SETUP if isinstance(error, SetupError) else 1)


def tell_ready(url: str) -> None:
    print(json.dumps({"ready": True, "url": url}), flush=True)
