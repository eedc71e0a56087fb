"""E-mails: subject as heading, sender, recipients and date, the text, and the names of attachments, which are not opened."""

from __future__ import annotations

from email import policy
from email.message import EmailMessage, MIMEPart
from email.parser import BytesParser
from itertools import islice

from ingestion.readers.base import CannotRead, Draft, Parsed, unmarked
from ingestion.readers.html import to_markdown
from ingestion.readers.text import decode

SHOWN = ("From", "To", "Cc", "Date")
MAX_HEADER_CHARS = 2_000  # of one line: lists of recipients can be endless
MAX_NAMES = 100  # of attachments
MAX_BOUNDARIES = 10_000  # of parts: each costs 0.1 ms to take apart
_BOUNDARY = b"\n--"
_SEALED = ("multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime")


def read_mail(content: bytes, max_chars: int) -> Parsed:
    if content.count(_BOUNDARY) > MAX_BOUNDARIES:
        raise CannotRead(f"The e-mail has too many parts, at most {MAX_BOUNDARIES} are read.")
    message = BytesParser(policy=policy.default).parsebytes(content)
    if not isinstance(message, EmailMessage) or not any(name in message for name in (*SHOWN, "Subject")):
        raise CannotRead("The file is no e-mail: it has neither a sender nor a subject.")
    if message.get_content_type() in _SEALED:
        raise CannotRead("The e-mail is encrypted; save it decrypted and send it again.")
    draft = Draft(max_chars)
    subject = _line(message, "Subject")
    draft.heading(1, subject)
    draft.add("\n".join(f"{name}: {value}" for name in SHOWN if (value := _line(message, name))))
    body = message.get_body(("plain", "html"))
    text, hidden = ("", 0) if body is None else _text(body)
    draft.add(text)
    named = (name for part in message.iter_attachments() if (name := part.get_filename()))
    if names := [" ".join(name.split()) for name in islice(named, MAX_NAMES)]:
        draft.add(f"Attachments: {', '.join(names)}")
    return draft.parsed(title=subject, hidden=hidden)


def _line(message: EmailMessage, name: str) -> str:
    """Cut before it is parsed, which takes memory in the square of its length."""
    raw = next((value for found, value in message.raw_items() if found.lower() == name.lower()), "")
    return " ".join(str(policy.default.header_fetch_parse(name, str(raw)[:MAX_HEADER_CHARS])).split())


def _text(part: MIMEPart) -> tuple[str, int]:
    """And how many characters of it are not shown."""
    payload = part.get_payload(decode=True)
    content = payload if isinstance(payload, bytes) else b""
    try:
        text = content.decode(part.get_content_charset("utf-8"))
    except (LookupError, UnicodeDecodeError):
        text = decode(content)
    if part.get_content_subtype() != "html":
        return unmarked(text.replace("\r\n", "\n")), 0
    found = to_markdown(text)
    return found.text, found.hidden
