"""Archives are looked at before anybody unpacks them: what they declare must fit, and their XML must declare nothing.

zipfile never unpacks more of a member than it declares, so what is declared is what can come. Archives inside an archive
are not opened.
"""

from __future__ import annotations

import io
import zipfile
import zlib

from lxml import etree

from ingestion.readers.base import CannotRead

MIB = 1024 * 1024
MAX_MEMBERS = 10_000
MAX_UNPACKED = 256 * MIB  # of all members together; reading one as XML takes a few times its size
MAX_RATIO, RATIO_FROM = 200, 16 * MIB  # office files reach 50 : 1; below that size a ratio does no harm
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DTD = (b"<!DOCTYPE", "<!DOCTYPE".encode("utf-16-le"), "<!DOCTYPE".encode("utf-16-be"))


def open_archive(content: bytes) -> zipfile.ZipFile:
    """Raise CannotRead for what is damaged, encrypted, or would unpack to more than it may."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise CannotRead("The file is damaged: it is no complete archive.") from error
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise CannotRead(f"The file holds {len(members)} parts, at most {MAX_MEMBERS} are read.")
    if any(member.flag_bits & _ENCRYPTED for member in members):
        raise CannotRead("The file is encrypted; remove its password and send it again.")
    if any(member.compress_type not in _METHODS for member in members):
        raise CannotRead("The file is compressed in an unusual way; save it again with the program that made it.")
    unpacked = sum(member.file_size for member in members)
    if unpacked > MAX_UNPACKED or (unpacked > RATIO_FROM and unpacked > MAX_RATIO * len(content)):
        raise CannotRead(f"The file would unpack to {unpacked} bytes from {len(content)}, which is not done; split it.")
    return archive


def open_office(content: bytes) -> zipfile.ZipFile:
    """As `open_archive`; no part of an office file may declare a document type, so that no entity is ever expanded."""
    archive = open_archive(content)
    for member in archive.infolist():
        if member.filename.lower().endswith((".xml", ".rels", ".vml")):
            _refuse_dtd(read_member(archive, member.filename))
    return archive


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except (KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise CannotRead(f"The file is damaged: its part {name[:100]} cannot be read.") from error


def xml_of(content: bytes) -> etree._Element:
    """Without entities, document types, comments and network, and with libxml2's bounds on depth and size."""
    _refuse_dtd(content)
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )
    try:
        return etree.fromstring(content, parser)
    except etree.XMLSyntaxError as error:
        raise CannotRead(f"The file is damaged: its XML breaks off or is wrong ({str(error)[:100]}).") from error


def _refuse_dtd(content: bytes) -> None:
    if any(mark in content for mark in _DTD):
        raise CannotRead("The file's XML declares a document type, which no such file has; save it again.")
