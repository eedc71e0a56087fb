"""One event, one JSON line on stderr. Content and keys are never logged; control characters cannot forge a line."""

from __future__ import annotations

import json
import logging
import sys
import threading
from contextvars import ContextVar
from types import TracebackType

from config.clock import isoformat, system_clock
from config.redaction import redact_field, redact_text

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
job_id: ContextVar[str | None] = ContextVar("job_id", default=None)

log = logging.getLogger(__name__)

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonLines(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            "at": isoformat(system_clock()),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "event": redact_text(_message(record)),
        }
        for name, current in (("request_id", request_id.get()), ("job_id", job_id.get())):
            if current is not None:
                event[name] = redact_text(current)  # a caller may have given it
        event |= {redact_text(name): redact_field(name, value) for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            event["exception"] = redact_text(self.formatException(record.exc_info))
        return json.dumps(event, ensure_ascii=True).replace("\x7f", "\\u007f")  # the one control character that JSON allows


def _message(record: logging.LogRecord) -> str:
    """A line whose arguments do not fit is logged without them: the standard handler would print them as they are."""
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError, IndexError):
        return str(record.msg)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    log.critical("uncaught exception", exc_info=(kind, error, trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is None or issubclass(args.exc_type, SystemExit):
        return
    fields = {"in_thread": args.thread.name if args.thread else None}
    log.critical("uncaught exception", extra=fields, exc_info=(args.exc_type, args.exc_value, args.exc_traceback))


def configure_logging(process: str, level: str) -> None:
    """Every line of this process, from here on: its own, libraries', warnings, and exceptions that nobody caught."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(process))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("httpx", "httpx2", "sentence_transformers", "alembic", "uvicorn.access", "dbos"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    queue = logging.getLogger("dbos")  # to a logger that has no handler it would give its own, with lines of its own
    queue.handlers, queue.propagate = [handler], False
