"""A log line is one line of JSON whatever is logged, and no secret is in it wherever it was put."""

from __future__ import annotations

import base64
import json
import logging
import secrets
import string
import sys
import threading
import time
import unicodedata
import warnings
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
import sqlalchemy as sa
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from config.database import Database
from config.logs import JsonLines, configure_logging, job_id, request_id
from config.redaction import REDACTED, redact_field, redact_text
from tenants.identity.keys import make_secret
from tenants.tables import TenantSecret
from tests.support import FakeScope

FORMATTER = JsonLines("test")
KEY_ID = "key_01m7y8yzqda5xg349f4q338vv2"
TOKEN = st.text(string.ascii_letters + string.digits + "_-", min_size=20, max_size=60)
ENCODED = st.binary(min_size=32, max_size=32).map(lambda key: base64.b64encode(key).decode())
#: Pairs: the text as it could be met, and the part that must never be shown.
SECRETS = st.one_of(
    TOKEN.map(lambda part: (f"carrel_{KEY_ID}_{part}", part)),
    TOKEN.map(lambda part: (f"carrel_key_{part}", part)),
    TOKEN.map(lambda part: (f"Bearer {part}", part)),
    TOKEN.map(lambda part: (f"Authorization: Basic {part}", part)),
    TOKEN.map(lambda part: (f"bearer   {part}", part)),
    TOKEN.map(lambda part: (jwt.encode({"sub": part}, b"k" * 32, "HS256"),) * 2),
    ENCODED.map(lambda part: (f"whsec_{part}", part)),
    ENCODED.map(lambda part: (part, part)),
    TOKEN.map(lambda part: (f"sk-proj-{part}", part)),
    TOKEN.map(lambda part: (f"hf_{part}", part)),
    TOKEN.map(lambda part: (f"postgresql+psycopg://carrel:{part}@db.example:5432/carrel", part)),
    TOKEN.map(lambda part: (f"postgresql://carrel:x/{part}@db/carrel?a=b", part)),
    TOKEN.map(lambda part: (f"host=db password={part} dbname=x", part)),
    TOKEN.map(lambda part: (f"{{'api_key': '{part} {part}', 'n': 1}}", part)),
    TOKEN.map(lambda part: (f'{{"client_secret": "a\\"{part}"}}', part)),
)
AROUND = st.text(max_size=20).map(lambda text: f"{text} ")


def record(message: object, *args: object, **fields: Any) -> logging.LogRecord:
    exc_info = fields.pop("exc_info", None)
    made = logging.LogRecord("lib.part", logging.INFO, __file__, 1, message, args, exc_info)
    vars(made).update(fields)
    return made


def raised(error: BaseException) -> Any:
    try:
        try:
            raise RuntimeError(f"the cause: {error}")
        except RuntimeError as cause:
            raise error from cause
    except type(error) as caught:
        return type(caught), caught, caught.__traceback__


def line(*args: Any, **fields: Any) -> tuple[str, dict[str, Any]]:
    """The formatted record, after the checks that hold for every one."""
    text = FORMATTER.format(record(*args, **fields))
    assert not [letter for letter in text if unicodedata.category(letter) in ("Cc", "Zl", "Zp")]
    return text, json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@given(SECRETS, AROUND, AROUND)
def test_a_secret_is_in_no_line_wherever_it_was_put(secret: tuple[str, str], before: str, after: str) -> None:
    text, hidden = secret
    assume(hidden[:12] not in before + after)
    text = f"{before}{text} {after}"
    lines = [
        line(text.replace("%", "%%")),
        line("asked with %s and %d", text, 1),
        line("asked with %(what)r", {"what": text}),
        line("asked with %d", text),
        line({"what": text}),
        line("event", url=text, nested={"list": [text, (text,)], "deep": {text: text}}, object=ValueError(text)),
        line("event", exc_info=raised(ValueError(text))),
        line("event", exc_info=raised(KeyError(text))),
    ]
    for shown, _ in lines:
        assert hidden[:12] not in shown


NAMES = [
    "authorization",
    "X-Api-Key",
    "apiKey",
    "secret",
    "client_secret",
    "token",
    "password",
    "operator_token",
    "PRIVATE_KEY",
]
CONTENTS = ["text", "content", "query", "question", "body", "raw_text", "lastQuery", "title", "passages"]


@pytest.mark.parametrize("name", NAMES + CONTENTS)
@pytest.mark.parametrize("value", ["canary", ["canary"], {"x": "canary"}, b"canary", ValueError("canary")])
def test_fields_whose_name_tells_are_withheld_at_any_depth(name: str, value: object) -> None:
    for fields in ({name: value}, {"outer": {name: value}}, {"outer": [{"inner": {name: value}}]}):
        text, _ = line("event", **fields)
        assert "canary" not in text
        assert REDACTED in text


def test_what_is_no_secret_stays() -> None:
    kept = {
        "tokens": 12, "token_id": "tok_1", "passages": 3, "path": "/v1/documents", "child": "api", "text": None,
        "address": "127.0.0.1", "key": "key_01jd3v", "context": "x", "ok": True, "share": 0.5, "table": "tenant_secrets",
    }  # fmt: skip
    _, event = line("the worker of task-scheduler-one waits: pk_budget_windows, tokens: 5, http://127.0.0.1:8321/x", **kept)
    assert {name: event[name] for name in kept} == kept
    assert event["event"].endswith("tokens: 5, http://127.0.0.1:8321/x")
    assert (event["level"], event["process"], event["logger"]) == ("info", "test", "lib.part")


def test_the_visible_part_of_a_key_stays() -> None:
    secret = make_secret(KEY_ID)
    assert redact_text(f"refused {secret}.") == f"refused carrel_{KEY_ID}_{REDACTED}."


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
KEYS = st.text() | st.integers() | st.tuples(st.text())
FIELDS = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))


@given(st.text(), st.dictionaries(st.text(min_size=1), FIELDS, max_size=4))
def test_a_line_is_one_line_of_json_whatever_is_logged(message: str, fields: dict[str, Any]) -> None:
    line(message, **{name: value for name, value in fields.items() if name not in {*vars(record("")), "message"}})
    line(message, "superfluous")
    line("%s", message, exc_info=raised(ValueError(message)))


def test_a_circle_and_a_flood_of_fields_end() -> None:
    circle: dict[str, Any] = {"name": "x"}
    circle["itself"] = [circle]
    text, event = line("event", circle=circle, many=[*range(10_000)])
    assert (len(text) < 2_000, len(event["many"])) == (True, 100)


@pytest.mark.parametrize(
    "piece", ["://", "://a:b", "eyJ", "bearer ", "password='", "-token-", "input_value=", "\n", "a", '"', "sk-", "A/"]
)
def test_a_long_line_does_not_take_long(piece: str) -> None:
    began = time.process_time()
    redact_text(piece * (100_000 // len(piece)))
    assert time.process_time() - began < 5  # a quadratic search would take minutes


def test_request_and_job_are_named_where_there_is_one() -> None:
    assert {"request_id", "job_id"}.isdisjoint(line("event")[1])
    tokens = request_id.set("req_1"), job_id.set("job_1")
    try:
        event = line("event")[1]
    finally:
        request_id.reset(tokens[0])
        job_id.reset(tokens[1])
    assert (event["request_id"], event["job_id"]) == ("req_1", "job_1")


def test_a_request_that_is_named_with_a_key_does_not_show_it() -> None:
    token = request_id.set(make_secret(KEY_ID))
    try:
        assert line("event")[1]["request_id"] == f"carrel_{KEY_ID}_{REDACTED}"
    finally:
        request_id.reset(token)


class Shape(BaseModel):
    wording: int


def test_what_libraries_show_of_values_is_withheld(database: Database) -> None:
    given = {"wording": "canary, with a comma"}
    with pytest.raises(ValidationError) as refused:
        Shape.model_validate(given)
    assert "canary" in str(refused.value)
    assert "canary" not in line("event", exc_info=raised(refused.value))[0]
    detail = 'violates "pk_x"\nDETAIL:  Failing row contains (a, canary).\nHINT:  none'
    assert redact_text(detail) == f'violates "pk_x"\nDETAIL: {REDACTED}\nHINT:  none'
    row = {"tenant_id": "a", "name": "x", "sealed": b"canary", "created_at": 0, "updated_at": 0}
    with pytest.raises(sa.exc.IntegrityError) as failed, database.write(FakeScope("a")) as session:
        session.execute(sa.insert(TenantSecret), [row, row])
    assert "canary" not in str(failed.value)


@pytest.fixture
def untouched_loggers() -> Iterator[None]:
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in ("dbos", "sqlalchemy", "uvicorn.error"))]
    before = [(logger, logger.level, [*logger.handlers], logger.propagate) for logger in loggers]
    hooks = sys.excepthook, threading.excepthook
    yield
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(False)
    for logger, level, handlers, propagate in before:
        logger.setLevel(level)
        logger.handlers, logger.propagate = handlers, propagate


@pytest.mark.parametrize("name", ["uvicorn.error", "dbos", "sqlalchemy.engine", "any.library"])
@pytest.mark.usefixtures("untouched_loggers")
def test_lines_of_libraries_pass_the_same_formatter(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("test", "debug")
    logger = logging.getLogger(name)
    logger.disabled = False
    secret = secrets.token_urlsafe(32)
    logger.error("failed with Bearer %s\nforged", secret)
    logger.debug("row %s", "canary")
    lines = capsys.readouterr().err.splitlines()
    assert json.loads(lines[0])["event"] == f"failed with Bearer {REDACTED}\nforged"
    assert secret not in "".join(lines)
    assert len(lines) == (1 if name in ("dbos", "sqlalchemy.engine") else 2)


@pytest.mark.usefixtures("untouched_loggers")
def test_exceptions_that_nobody_caught_and_warnings_are_lines_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("test", "info")
    secret = secrets.token_urlsafe(32)
    error = ValueError(f"Bearer {secret}")

    def fails() -> None:
        raise error

    sys.excepthook(*raised(error))
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    thread = threading.Thread(target=fails, name="lost")
    thread.start()
    thread.join()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)  # pytest takes warnings for itself; from the next line on they are ours
        logging.captureWarnings(True)
        warnings.warn("odd", UserWarning, stacklevel=1)
    written = capsys.readouterr().err
    lines = [json.loads(line) for line in written.splitlines()]
    assert [line["level"] for line in lines] == ["critical", "critical", "warning"]
    assert all("ValueError" in line["exception"] for line in lines[:2])
    assert lines[1]["in_thread"] == "lost"
    assert "odd" in lines[2]["event"]
    assert secret not in written


@given(st.text(max_size=50))
def test_redacting_twice_changes_nothing_more(name: str) -> None:
    once = redact_text(f"password={name} token: {name}")
    assert redact_text(once) == once
    assert redact_field("password", name) == REDACTED
