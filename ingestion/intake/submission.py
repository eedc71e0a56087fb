"""A document as it is brought, and the bounds of everything that describes it. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from config.errors import InvalidInput, TooLarge, UrlRefused
from ingestion.fetch.addresses import UrlPolicy
from ingestion.media import MARKDOWN, TEXT, sniff
from rag.attributes import Stored, conformed
from rag.collections import DEFAULT
from rag.corpus import PIPELINE_VERSION
from rag.filters import Value, check_attributes
from rag.profiles import Chunking

MAX_TITLE_CHARS, MAX_EXTERNAL_ID_CHARS, MAX_SOURCE_CHARS = 500, 512, 2_000
MAX_LABELS, MAX_LABEL_CHARS = 16, 64


@dataclass(frozen=True, slots=True)
class Submission:
    """Without `external_id` the content is the document's name: sent twice, it is one document. Of what is fetched, the URL."""

    content: bytes = b""
    file_name: str = ""
    media_type: str | None = None  #: None: sniffed
    collection: str = DEFAULT
    external_id: str | None = None
    title: str | None = None
    source: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    labels: Sequence[str] = ()
    url: str | None = None  #: from where a job is to fetch the content, instead of `content`
    copied_from: str | None = None  #: the version or session that it is made of, whose vectors it takes over
    chunking: Chunking | None = None  #: None: as the collection's profile says


@dataclass(frozen=True, slots=True)
class Checked:
    """A submission within its bounds, with every default filled in."""

    content: bytes
    media_type: str
    collection: str
    external_id: str
    title: str  #: empty: the content's own title, or the name of its source, once it is read
    source: str | None
    attributes: dict[str, Value]
    labels: tuple[str, ...]
    url: str | None = None
    copied_from: str | None = None
    chunking: Chunking | None = None

    def within(self, types: Stored) -> Checked:
        """With its attributes as a collection keeps them. Raises InvalidInput."""
        return replace(self, attributes=conformed(types, self.attributes))

    @property
    def digest(self) -> str:
        """Of what is to be fetched, it stands until that is done, and no content has it: its type is empty."""
        content = self.content if self.url is None else self.url.encode()
        return digest_of(content, self.media_type, self.title, self.source, self.attributes, self.labels)


def digest_of(
    content: bytes, media_type: str, title: str, source: str | None, attributes: Mapping[str, Any], labels: Sequence[str]
) -> str:
    """Equal digests need no work: content, type, description and pipeline are the same."""
    described = [media_type, title, source, attributes, labels, PIPELINE_VERSION]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode() + b"\0" + content).hexdigest()


def check(submission: Submission, *, max_bytes: int, urls: UrlPolicy | None = None) -> Checked:
    """Raise InvalidInput, TooLarge or UnsupportedMedia, naming the field and the limit. Without `urls` none is taken."""
    url = None if submission.url is None else _url(submission.url, urls)
    if url is None and not submission.content.strip():
        raise InvalidInput("The document is empty.", field="content")
    if len(submission.content) > max_bytes:
        raise TooLarge(f"A document has at most {max_bytes} bytes.", field="content", limit=max_bytes)
    _bounded("title", submission.title, 0, MAX_TITLE_CHARS)
    _bounded("external_id", submission.external_id, 1, MAX_EXTERNAL_ID_CHARS)
    _bounded("source", submission.source, 0, MAX_SOURCE_CHARS)
    if len(submission.labels) > MAX_LABELS:
        raise InvalidInput(f"At most {MAX_LABELS} labels.", field="labels", limit=MAX_LABELS)
    for label in submission.labels:
        _bounded("labels", label, 1, MAX_LABEL_CHARS)
    return Checked(
        content=submission.content,
        media_type="" if url else submission.media_type or sniff(submission.content, submission.file_name),
        collection=submission.collection,
        external_id=submission.external_id or _named_by(submission.content, url),
        title=submission.title or "",
        source=submission.source,
        attributes=check_attributes(submission.attributes),
        labels=tuple(sorted(set(submission.labels))),
        url=url,
        copied_from=submission.copied_from,
        chunking=submission.chunking,
    )


def _url(given: str, urls: UrlPolicy | None) -> str:
    """As it will be fetched; where it leads is looked at then."""
    if urls is None:
        raise UrlRefused("This service does not fetch URLs; send the content.", field="url")
    return urls.target(given).url


def _named_by(content: bytes, url: str | None) -> str:
    if url is not None and len(url) <= MAX_EXTERNAL_ID_CHARS:
        return url
    return f"sha256:{hashlib.sha256(content if url is None else url.encode()).hexdigest()}"


def text_media_type(text_format: str) -> str:
    """The media type of text sent as JSON."""
    return MARKDOWN if text_format == "markdown" else TEXT


def _bounded(field_name: str, value: str | None, least: int, most: int) -> None:
    if value is not None and not least <= len(value) <= most:
        raise InvalidInput(f"`{field_name}` is {least} to {most} characters.", field=field_name, limit=most)
