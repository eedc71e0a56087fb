"""EPUB: its chapters in reading order, each read as HTML is."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote
from zipfile import ZipFile

from lxml.etree import _Element as Element

from ingestion.readers.archives import open_archive, read_member, xml_of
from ingestion.readers.base import CannotRead, Draft, Parsed
from ingestion.readers.html import to_markdown

CONTAINER, ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
_TITLE = "{http://purl.org/dc/elements/1.1/}title"


def read_epub(content: bytes, max_chars: int) -> Parsed:
    archive = open_archive(content)
    place = next((item.get("full-path") for item in _named(_xml(archive, CONTAINER), "rootfile")), None)
    if not place:
        raise CannotRead("The book is damaged: its contents are not listed.")
    package = _xml(archive, place)
    chapters = _chapters(package, posixpath.dirname(place))
    if ENCRYPTION in archive.namelist():
        sealed = {unquote(item.get("URI", "")) for item in _named(_xml(archive, ENCRYPTION), "CipherReference")}
        if not sealed.isdisjoint(chapters):
            raise CannotRead("The book is protected against copying; send an unprotected copy.")
    draft, hidden = Draft(max_chars), 0
    for chapter in chapters:
        found = to_markdown(read_member(archive, chapter))
        draft.add(found.text)
        hidden += found.hidden
    title = package.find(f".//{_TITLE}")
    return draft.parsed(title=None if title is None else title.text, hidden=hidden)


def _chapters(package: Element, folder: str) -> list[str]:
    items = {item.get("id"): item.get("href", "") for item in _named(package, "item")}
    hrefs = [items.get(item.get("idref"), "") for item in _named(package, "itemref")]
    return list(dict.fromkeys(posixpath.normpath(posixpath.join(folder, unquote(href))) for href in hrefs if href))


def _xml(archive: ZipFile, name: str) -> Element:
    return xml_of(read_member(archive, name))


def _named(tree: Element, name: str) -> list[Element]:
    return [*tree.iter(f"{{*}}{name}")]
