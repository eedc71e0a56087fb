"""JSON, notebooks, e-mails, subtitles and source code: what a person would read of them, and where it stands."""

from __future__ import annotations

from email.message import EmailMessage

import pytest

from ingestion.media import JSON, JSON_LINES, MAIL, NOTEBOOK, SRT, VTT, sniff
from ingestion.readers.base import CannotRead, Parsed
from ingestion.readers.registry import read
from tests.documents import mail, notebook


def _read(content: bytes | str, kind: str) -> Parsed:
    return read(content.encode() if isinstance(content, str) else content, kind, max_chars=100_000)


@pytest.mark.parametrize(
    ("content", "kind", "expected"),
    [
        ('{"a": {"b": [1, "x y", true]}, "c": null}', JSON, "a.b[0]: 1\na.b[1]: x y\na.b[2]: true\nc: null"),
        ('[{"a": 1, "b": 2}, {"a": 3}]', JSON, "[0].a: 1\n[0].b: 2\n\n[1].a: 3"),
        ('{"odd key": 1, "a.b": 2, "": 3}', JSON, '"odd key": 1\n"a.b": 2\n"": 3'),
        ('"alone"', JSON, "alone"),
        ("{}", JSON, "{}"),
        ('{"text": "two\\nlines \\ud800\\u0000!"}', JSON, "text: two\nlines !"),
        ('{"a": 1}\n{"a": 2}\n', JSON, "a: 1\n\na: 2"),
        ('{"a": 1, "b": "grüße"}\r\n\r\n{"a": 2}', JSON_LINES, "a: 1\nb: grüße\n\na: 2"),
    ],
)
def test_json_names_the_path_of_every_value(content: str, kind: str, expected: str) -> None:
    assert _read(content, kind) == Parsed(expected)


@pytest.mark.parametrize(
    ("content", "kind", "reason"),
    [
        ('{"a":\n1,}', JSON, "line 2"),
        ('{"a": 1}\n{"a"}\n', JSON_LINES, "line 2"),
        ("9" * 5_000, JSON, "line 1"),
        ("[" * 200 + "]" * 200, JSON, "nested"),
        ("[]", NOTEBOOK, "no notebook"),
        ('{"cells": [{"cell_type": "code"}]}', NOTEBOOK, "no source"),
        ('{"cells": []}', NOTEBOOK, "no text"),
        ("no cues at all", SRT, "no cues"),
        ("WEBVTT\n\n00:01.000 --> 00:02.000\n<i></i>\n", VTT, "no text"),
        ("just a letter", MAIL, "no e-mail"),
    ],
)
def test_what_is_no_such_file_is_refused(content: str, kind: str, reason: str) -> None:
    with pytest.raises(CannotRead, match=reason):
        _read(content, kind)


def test_a_notebook_keeps_text_and_code() -> None:
    parsed = _read(notebook(), NOTEBOOK)
    assert parsed.markdown
    code = '````python\ntext = """\n```\n"""\n````'
    assert parsed.text == f"# Loans\n\nKept for four weeks.\n\n```python\nweeks = 4\n```\n\n{code}"


def test_a_mail_keeps_who_wrote_what_and_when() -> None:
    parsed = _read(mail(), MAIL)
    assert parsed.markdown
    assert parsed.title == "Größe der Ausleihe"
    assert parsed.text == (
        "# Größe der Ausleihe\n\n"
        "From: Jürgen <j@example.org>\nTo: all@example.org\nDate: Sun, 01 Mar 2026 09:30:00 +0000\n\n"
        "Books may be kept for four weeks.\n\\# no heading\n\nAttachments: rules für alle.pdf"
    )


def test_a_mail_without_plain_text_is_read_from_its_html() -> None:
    message = EmailMessage()
    message["Subject"] = "x"
    message.set_content("<h2>Größe</h2><p>in <b>HTML</b></p><script>hidden</script>", subtype="html", charset="iso-8859-1")
    assert _read(message.as_bytes(), MAIL).text == "# x\n\n## Größe\n\nin **HTML**"


def test_odd_mails_are_read_or_refused_with_a_reason() -> None:
    assert _read(b"Subject: x\nContent-Type: text/plain; charset=nowhere\n\ngr\xfc\xdfe", MAIL).text == "# x\n\ngrüße"
    assert _read(b"Subject: x\nContent-Transfer-Encoding: base64\n\n!!!", MAIL).text.startswith("# x")
    with pytest.raises(CannotRead, match="encrypted"):
        _read(b"Subject: x\nContent-Type: multipart/encrypted; boundary=b\n\n--b\n\n--b--\n", MAIL)


def test_endless_headers_are_cut_before_they_are_parsed() -> None:
    parsed = _read(b"Subject: " + b"=?utf-8?q?a?= " * 100_000 + b"\nTo: " + b"a@b, " * 100_000 + b"\n\nbody", MAIL)
    assert parsed.text.endswith("body")
    assert len(parsed.text) < 5_000


def test_subtitles_keep_what_is_said_and_when() -> None:
    srt = (
        "\ufeff1\r\n00:00:01,000 --> 00:00:02,500\r\n<i>Books</i> may\r\nbe kept\r\n\r\n"
        "2\r\n01:02:03,9 --> 01:02:05,0\r\n{\\an8}longer\r\n"
    )
    assert _read(srt, SRT).text == "[00:00:01] Books may be kept\n[01:02:03] longer"
    vtt = (
        "WEBVTT - talk\n\nNOTE\nhidden\n\nSTYLE\n::cue { color: red }\n\n"
        "intro\n00:01.000 --> 00:02.000 align:start\n<v.loud Ada Lovelace>4 &lt; 5</v>\n\n10:00:00.000 --> 10:00:01.000\nend"
    )
    assert _read(vtt, VTT).text == "[00:00:01] Ada Lovelace: 4 < 5\n[10:00:00] end"


def test_source_code_is_kept_exactly_and_named() -> None:
    content = b"\xef\xbb\xbf# not a heading\r\n\tdef f():\r\n        return '\\0'\r\n\r\n"
    kind = sniff(content, "src/main.PY")
    assert kind == "text/x-python"
    assert _read(content, kind) == Parsed(content.decode(), outline="ABC..")
    assert sniff(b"<!doctype html>\n<?php ?>", "page.php") == "text/x-php"
    assert sniff(b"<html><p>x", "data.csv") == "text/html"
