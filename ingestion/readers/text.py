"""Plain text, Markdown and source code: decoded, otherwise exactly as they came, so that offsets hold in the user's copy."""

from __future__ import annotations

from charset_normalizer import from_bytes

from ingestion.media import utf16_of
from ingestion.readers.base import CannotRead, Parsed

SAMPLE = 64 * 1024  # bytes that an encoding is guessed from, in tens of milliseconds
WESTERN = "cp1252"
#: What is met where UTF-8 is not; the guess between more is worse.
GUESSED = [WESTERN, "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r", "cp932", "gb18030", "big5", "euc_kr"]


def read_text(content: bytes, max_chars: int) -> Parsed:
    return Parsed(decode(content))


def read_markdown(content: bytes, max_chars: int) -> Parsed:
    return Parsed(decode(content), markdown=True)


def decode(content: bytes) -> str:
    """UTF-8, UTF-16, or a legacy encoding that fits the whole; raise CannotRead for what is no text."""
    # A UTF-8 byte order mark stays: it is a character of the user's copy, and offsets must hold there.
    try:
        text = content.decode(utf16_of(content) or "utf-8")
    except UnicodeDecodeError as error:
        text = _legacy(content, error)
    if "\0" in text:
        raise CannotRead("The text contains NUL characters.")
    return text


def _legacy(content: bytes, error: UnicodeDecodeError) -> str:
    refusal = CannotRead(f"The text is not UTF-8 (byte {error.start}) and of no known encoding; convert it and send it again.")
    start = max(0, error.start - SAMPLE // 2)
    sample = content[start : start + SAMPLE]
    if utf16_of(content) or _is_broken_utf8(sample):
        raise refusal from error
    encoding = _guess(sample)
    if encoding is None:
        raise refusal from error
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        raise refusal from error


def _guess(sample: bytes) -> str | None:
    matches = from_bytes(sample, cp_isolation=GUESSED)
    best = matches.best()
    if best is None:
        return None
    # Western texts often look no worse in cp1250, which is tried first.
    as_good = (match for match in matches if match.chaos <= best.chaos and match.coherence >= best.coherence)
    return WESTERN if any(match.encoding == WESTERN for match in as_good) else best.encoding


def _is_broken_utf8(sample: bytes) -> bool:
    """Mostly UTF-8: any other encoding would turn the rest into nonsense."""
    unusual = [character for character in sample.decode("utf-8", "replace") if character > "\x7f"]
    return 2 * unusual.count("\ufffd") < len(unusual)
