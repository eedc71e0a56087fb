"""Takes out of text and fields what must not be written down: keys, tokens, passwords, and contents. Pure.

Text is searched for shapes, which secrets of ours and of providers have; fields go by their names, which contents have.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

REDACTED = "[redacted]"
MAX_DEPTH, MAX_ITEMS = 6, 100  # of nested fields; what lies deeper is named by its type, what is more is left out

#: Quoted or one word. An open quote goes to the end, and a quote after any backslashes is inside: a repr doubles them.
_VALUE = r"(?:\\{0,9}\"(?:[^\"\\]|\\+[^\\])*\"?|\\{0,9}'(?:[^'\\]|\\+[^\\])*'?|[^\s,;&)}\]]+)"
_NAMED = r"passwords?|passwd|pwd|secrets?|(?:api|secret|access|private|signing)[_-]?keys?|credentials?|token"
#: Repetitions that can fail after many characters are bounded, so that a line of n characters costs O(n).
_SHAPES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # Ours: the part that names the key stays.
        (r"(carrel_key_)([0-9a-z]{26}_)?[A-Za-z0-9_-]+", rf"\1\2{REDACTED}"),
        (
            r"(?i)(authorization\\{0,9}[\"']?\s{0,9}[:=,]\s{0,9}b?\\{0,9}[\"']?(?:[a-z]{1,20}\s{1,9})?"
            r"|\bbearer\s{1,9}\\{0,9}[\"']?)[^\s\"',;]+",
            rf"\1{REDACTED}",
        ),
        (r"eyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*){0,2}", REDACTED),  # a JWT: its first part is the base64 of {"
        (r"whsec_[A-Za-z0-9+/=_-]+", f"whsec_{REDACTED}"),
        (r"(?<![A-Za-z0-9])(sk[-_]|pa-|pplx-|xox[abeprs]-)[A-Za-z0-9_-]{8,}", rf"\1{REDACTED}"),
        (r"(?<![A-Za-z0-9])(hf_|gsk_|jina_|r8_|gh[opusr]_|nvapi-|glpat-)[A-Za-z0-9_-]{16,}", rf"\1{REDACTED}"),
        (r"AIza[A-Za-z0-9_-]{30,}|AKIA[A-Z0-9]{16}", REDACTED),
        (r"[A-Za-z0-9+/]{43}=", REDACTED),  # the base64 of 32 bytes: a master key
        # postgresql://user:password@host, also where the password has a slash that was not encoded
        (r"://(?:[^\s/?#]{0,512}|[^\s:/@]{0,128}:(?!\d{1,5}[/?#])\S{0,512})@", f"://{REDACTED}@"),
        (rf"(?i)((?:{_NAMED})\\{{0,9}}[\"']?\s{{0,9}}[:=]\s{{0,9}})(?!\[redacted\]){_VALUE}", rf"\1{REDACTED}"),
        # pydantic shows what it refuses, PostgreSQL the row that breaks a constraint
        (r"(?s)input_value=.{0,4096}?(?=, input_type=|$)", f"input_value={REDACTED}"),
        (r"(?m)^(\s{0,99}DETAIL:).*$", rf"\1 {REDACTED}"),
    )
)
_SECRETS = re.compile(rf"(?:^|_)(?:authorization|cookie|{_NAMED})$")
_CONTENTS = re.compile(
    r"(?:^|_)(?:texts?|contents?|body|bodies|query|queries|questions?|prompts?|answers?|passages?|quotes?|titles?)$"
)


def redact_text(text: str) -> str:
    for shape, replacement in _SHAPES:
        text = shape.sub(replacement, text)
    return text


def redact_field(name: str, value: object, depth: int = 0) -> object:
    """The value as JSON can hold it: withheld if its name tells of a secret or content, else with its strings redacted.

    Numbers are no content: `passages=3` stays. `tokens` and `token_id` tell of no secret.
    """
    plain_name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name[-200:]).replace("-", "_").lower()  # apiKey, X-Api-Key
    if value is None or isinstance(value, bool):
        return value
    if _SECRETS.search(plain_name):
        return REDACTED
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON knows no NaN
    return REDACTED if _CONTENTS.search(plain_name) else _redact_members(name, value, depth)


def _redact_members(name: str, value: object, depth: int) -> object:
    if not isinstance(value, Mapping | list | tuple | set | frozenset):
        return redact_text(str(value))
    if depth == MAX_DEPTH:
        return f"[{type(value).__name__}]"
    if isinstance(value, Mapping):
        return {redact_text(str(key)): redact_field(str(key), inner, depth + 1) for key, inner in _first(value.items())}
    return [redact_field(name, inner, depth + 1) for inner in _first(value)]


def _first(items: Iterable[object]) -> list[Any]:
    return [*itertools.islice(items, MAX_ITEMS)]
