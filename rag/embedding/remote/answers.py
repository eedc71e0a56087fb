"""What a provider's answer says: vectors, or why there are none. Pure.

The shape is OpenAI's: `{"data": [{"index": 0, "embedding": BASE64 | [numbers]}, …]}`, in any order. Nothing that a provider
writes reaches a message of ours but short codes: its prose may repeat the key or the text.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import numpy as np

from config.errors import CarrelError, ModelUnavailable, ProviderRefused
from rag.embedding.remote.failures import Broken, Pressed, ProviderFailure, TooMuch
from rag.embedding.runtime import Matrix, unit_rows

_CODE = re.compile(r"[a-z0-9_.-]{1,64}")
_TOO_MUCH = re.compile(
    r"too many (?:tokens|inputs)|too (?:long|large)|maximum (?:context|allowed)|max\w*[ _](?:context|tokens)"
)
_ADVICE = {
    401: "does not accept the key: set CARREL_EMBEDDING_API_KEY",
    403: "does not allow this key to use the model: check CARREL_EMBEDDING_API_KEY and CARREL_EMBEDDING_MODEL",
    404: "knows no such address or model: check CARREL_EMBEDDING_URL and CARREL_EMBEDDING_MODEL",
}
SETTING_RETRY_S = 60.0  # after what the operator must mend first
_RETRIED = (408, 409)  # and 5xx


def vectors_of(body: bytes, count: int, dimensions: int) -> Matrix:
    """Unit vectors in the order of the texts, shape (count, dimensions), computed in fp32.

    A provider that ignored `dimensions` sent more: they are cut, as Matryoshka models allow. Raise Broken for an answer that
    another try may mend, ModelUnavailable for vectors that are too short.
    """
    try:
        items = json.loads(body)["data"]
        rows = {int(item.get("index", place)): _row(item["embedding"]) for place, item in enumerate(items)}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise Broken("the answer is not a list of embeddings") from error
    if len(items) != count or rows.keys() != set(range(count)):
        raise Broken(f"the answer has {len(items)} embeddings for {count} texts, or numbers them wrongly")
    widths = {len(row) for row in rows.values()}
    if len(widths) != 1:
        raise Broken("the answer's embeddings differ in width")
    if (width := widths.pop()) < dimensions:
        detail = f"The provider's vectors have {width} dimensions: set CARREL_EMBEDDING_DIMENSIONS to {width} or fewer."
        raise ModelUnavailable(detail, retry_after_s=SETTING_RETRY_S)
    matrix = np.stack([rows[place][:dimensions] for place in range(count)])
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(matrix, axis=1)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise Broken("the answer has embeddings that are not finite, or all zeros")
    return unit_rows(matrix)


def _row(embedding: Any) -> Matrix:
    if isinstance(embedding, str):
        return np.asarray(np.frombuffer(base64.b64decode(embedding, validate=True), "<f4"), np.float32)
    with np.errstate(over="ignore"):
        row = np.asarray(embedding, np.float32)
    if row.ndim != 1:
        raise ValueError("an embedding is a list of numbers")
    return row


def failure_of(status: int, headers: Mapping[str, str], body: bytes, *, now: dt.datetime) -> ProviderFailure | CarrelError:
    """What to raise for an answer that is not 200. `headers` by lower-case names."""
    code, message = _said(body)
    detail = f"status {status}" + (f", {code}" if code else "")
    if status == 429 and code == "insufficient_quota":
        return ModelUnavailable(
            "The embedding provider's quota of this account is used up; raise it there.", retry_after_s=SETTING_RETRY_S
        )
    after = retry_after_s(headers, now=now)
    if status == 429:
        return Pressed(detail, retry_after_s=after)
    if status in _RETRIED or status >= 500:
        return Broken(detail, retry_after_s=after, timed_out=status in (408, 504))
    if status == 413 or (status in (400, 422) and _TOO_MUCH.search(message)):
        return TooMuch(detail)
    if status in _ADVICE:
        return ModelUnavailable(f"The embedding provider {_ADVICE[status]} ({detail}).", retry_after_s=SETTING_RETRY_S)
    if 300 <= status < 400:
        return ModelUnavailable("The embedding provider is elsewhere: set CARREL_EMBEDDING_URL to where it redirects to.")
    return ProviderRefused(
        f"The embedding provider refuses the request ({detail}); "
        "check CARREL_EMBEDDING_MODEL, CARREL_EMBEDDING_DIMENSIONS and CARREL_EMBEDDING_MAX_TOKENS."
    )


def retry_after_s(headers: Mapping[str, str], *, now: dt.datetime) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `Retry-After` (seconds or HTTP date, RFC 9110); None if neither can be read."""
    for name, per_second in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers[name]) / per_second
        except (KeyError, ValueError):
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    try:
        date = parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError, OverflowError):
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or dt.UTC) - now).total_seconds())


def _said(body: bytes) -> tuple[str, str]:
    """The error's code where it is one, and its message in lower case, for matching only."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    said = said.get("error", said) if isinstance(said, dict) else said
    if not isinstance(said, dict):
        return "", str(said)[:1000].lower()
    code = next((value for name in ("code", "type") if isinstance(value := said.get(name), str)), "")
    return code if _CODE.fullmatch(code) else "", f"{code} {said.get('message', '')}"[:1000].lower()
