"""What kind of content this is: by its bytes first, by its name where bytes do not tell.

Nothing is unpacked or parsed here: this runs where requests are answered, and the bytes may be hostile.
"""

from __future__ import annotations

import struct
from pathlib import PurePosixPath

from config.errors import UnsupportedMedia

TEXT, MARKDOWN, HTML, PDF = "text/plain", "text/markdown", "text/html", "application/pdf"
_OFFICE = "application/vnd.openxmlformats-officedocument."
DOCX = f"{_OFFICE}wordprocessingml.document"
PPTX = f"{_OFFICE}presentationml.presentation"
XLSX = f"{_OFFICE}spreadsheetml.sheet"
CSV, TSV = "text/csv", "text/tab-separated-values"
JSON, JSON_LINES, NOTEBOOK = "application/json", "application/jsonl", "application/x-ipynb+json"
MAIL = "message/rfc822"
RTF, ODT, EPUB = "application/rtf", "application/vnd.oasis.opendocument.text", "application/epub+zip"
SRT, VTT = "application/x-subrip", "text/vtt"
CODE = "text/x-"  #: and the language
#: Kept as it came; the language is known by the suffix.
LANGUAGES = {
    "asm": ".s .asm",
    "c": ".c .h",
    "c++": ".cc .cpp .cxx .hh .hpp",
    "clojure": ".clj",
    "csharp": ".cs",
    "css": ".css .scss .less",
    "dart": ".dart",
    "elixir": ".ex .exs",
    "erlang": ".erl",
    "fortran": ".f90 .f",
    "go": ".go",
    "graphql": ".graphql",
    "haskell": ".hs",
    "java": ".java",
    "javascript": ".js .jsx .mjs .cjs",
    "julia": ".jl",
    "kotlin": ".kt .kts",
    "lua": ".lua",
    "makefile": ".mk",
    "ocaml": ".ml",
    "perl": ".pl .pm",
    "php": ".php",
    "powershell": ".ps1",
    "proto": ".proto",
    "python": ".py .pyi",
    "r": ".r",
    "restructuredtext": ".rst",
    "ruby": ".rb",
    "rust": ".rs",
    "scala": ".scala",
    "shell": ".sh .bash .zsh",
    "sql": ".sql",
    "swift": ".swift",
    "tex": ".tex",
    "toml": ".toml",
    "typescript": ".ts .tsx",
    "vue": ".vue .svelte",
    "xml": ".xml .xsd .xsl",
    "yaml": ".yaml .yml",
    "zig": ".zig",
}
CODE_SUFFIXES = {suffix: CODE + language for language, suffixes in LANGUAGES.items() for suffix in suffixes.split()}
#: Kinds whose bytes tell them: a file that is only named so is none.
BINARY = {
    PDF: "PDF",
    DOCX: "Word document",
    PPTX: "PowerPoint presentation",
    XLSX: "Excel workbook",
    RTF: "RTF document",
    ODT: "OpenDocument text",
    EPUB: "EPUB book",
}
SUFFIXES = {
    ".txt": TEXT,
    ".text": TEXT,
    ".md": MARKDOWN,
    ".markdown": MARKDOWN,
    ".html": HTML,
    ".htm": HTML,
    ".pdf": PDF,
    ".docx": DOCX,
    ".pptx": PPTX,
    ".xlsx": XLSX,
    ".csv": CSV,
    ".tsv": TSV,
    ".json": JSON,
    ".jsonl": JSON_LINES,
    ".ndjson": JSON_LINES,
    ".ipynb": NOTEBOOK,
    ".eml": MAIL,
    ".srt": SRT,
    ".vtt": VTT,
    ".rtf": RTF,
    ".odt": ODT,
    ".epub": EPUB,
    **CODE_SUFFIXES,
}
FORMATS = "txt, md, html, pdf, docx, pptx, xlsx, csv, tsv, json, jsonl, ipynb, eml, srt, vtt, rtf, odt, epub, source code"

_SNIFFED = 4096
_MAY_BEGIN_LIKE_HTML = {*CODE_SUFFIXES.values()}
_ARCHIVE, _OLD_OFFICE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_DIRECTORY_END, _DIRECTORY_END_BYTES, _MAX_COMMENT = b"PK\x05\x06", 22, 65_535
_FIRST_MEMBER = 200
_MAIN_PARTS = {b"word/document": DOCX, b"ppt/presentation": PPTX, b"xl/workbook": XLSX}


def sniff(content: bytes, file_name: str) -> str:
    """Return the media type, or raise UnsupportedMedia. A name that contradicts the bytes loses."""
    head = content[:_SNIFFED]
    named = SUFFIXES.get(PurePosixPath(file_name).suffix.lower())
    if found := _by_mark(content, head, named):
        return found
    if b"\0" in head and utf16_of(content) is None:
        raise _refused(f"The content is binary and of no kind that is read: {FORMATS}.")
    if _looks_like_html(head) and named not in _MAY_BEGIN_LIKE_HTML:
        return HTML
    if named in BINARY:
        raise _refused(f"The file is named {PurePosixPath(file_name).suffix} but is no {BINARY[named]}.")
    return named or TEXT


def language_of(media_type: str) -> str:
    """Of source code; empty for everything else."""
    return media_type.removeprefix(CODE) if media_type.startswith(CODE) else ""


def utf16_of(content: bytes) -> str | None:
    """The codec of UTF-16, known by its mark or, without one, by a zero in nearly every second byte; None for all else."""
    head = content[:_SNIFFED]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    for high, low, codec in ((head[1::2], head[::2], "utf-16-le"), (head[::2], head[1::2], "utf-16-be")):
        if len(low) >= 8 and high.count(0) >= 0.7 * len(high) and min(low) >= 9:  # text has no control characters below
            return codec
    return None


def _by_mark(content: bytes, head: bytes, named: str | None) -> str | None:
    # Readers of PDF accept junk before the mark; a text about PDF must not become one.
    if head.lstrip().startswith(b"%PDF-") or (named == PDF and b"%PDF-" in head[:1024]):
        return PDF
    if head.lstrip().startswith(b"{\\rtf"):
        return RTF
    if head.startswith(_ARCHIVE):
        return _kind_of_archive(content)
    if head.startswith(_OLD_OFFICE):
        if "EncryptedPackage".encode("utf-16-le") in content:
            raise _refused("The file is encrypted; remove its password and send it again.")
        raise _refused("The file is of an old Office format; save it as .docx, .pptx or .xlsx and send that.")
    return None


def _kind_of_archive(content: bytes) -> str:
    end = content.rfind(_DIRECTORY_END, max(0, len(content) - _DIRECTORY_END_BYTES - _MAX_COMMENT))
    if end < 0 or len(content) - end < _DIRECTORY_END_BYTES:
        raise _refused("The file is cut off or damaged: its directory is missing. Send it again.")
    (size,) = struct.unpack_from("<I", content, end + 12)
    directory = content[max(0, end - size) : end]
    first = content[:_FIRST_MEMBER]  # of an OpenDocument or a book: uncompressed, and it says the type
    for kind in (ODT, EPUB):
        if b"mimetype" in first and kind.encode() in first:
            return kind
    if b"[Content_Types].xml" in directory:
        for part, kind in _MAIN_PARTS.items():
            if part in directory:
                return kind
    raise _refused(f"The file is an archive and of no kind that is read: {FORMATS}. Send the files in it one by one.")


def _looks_like_html(head: bytes) -> bool:
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _refused(message: str) -> UnsupportedMedia:
    return UnsupportedMedia(message, field="file")
