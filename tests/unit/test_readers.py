"""Readers keep what a person would read, and refuse with a reason what cannot become text."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from ingestion.media import CSV, HTML, MARKDOWN, PDF, TEXT, VTT
from ingestion.readers.base import CannotRead, Parsed
from ingestion.readers.registry import read
from tests.support import cpu_seconds

MAX = 100_000
PAGE = """<!doctype html><html><head><title> The
 page </title><style>p { color: red }</style></head><body>
<nav><ul><li>Home</li></ul></nav><script>alert("code")</script>
<h1>Top</h1><p>First &amp; <b>second</b> <a href="https://example.org/x">link</a>.</p>
<h2>Lower</h2><ul><li>one</li><li>two</li></ul><ol><li>eins</li></ol>
<table><tr><th>name</th><th>fee</th></tr><tr><td>book</td><td>20 cents</td></tr></table>
<pre>  kept
    indent</pre><noscript>enable it</noscript><template>hidden</template><svg><text>drawn</text></svg>
<footer>imprint</footer><form><button>Send</button></form></body></html>"""


def _read(content: bytes | str, kind: str = HTML) -> Parsed:
    return read(content.encode() if isinstance(content, str) else content, kind, max_chars=MAX)


def _refusal(content: bytes | str, kind: str) -> str:
    with pytest.raises(CannotRead) as refused:
        _read(content, kind)
    return str(refused.value)


def test_html_becomes_markdown_with_its_structure() -> None:
    parsed = _read(PAGE)
    lines = parsed.text.splitlines()
    assert parsed.markdown
    assert parsed.title == "The page"
    assert {"# Top", "## Lower", "- one", "- two", "1. eins", "| book | 20 cents |", "    indent"} <= set(lines)
    assert "First & **second** link." in lines
    assert lines.index("# Top") < lines.index("## Lower") < lines.index("- one") < lines.index("    indent")


@pytest.mark.parametrize(
    "left_out", ["Home", "alert", "color", "enable it", "hidden", "drawn", "Send", "example.org", "imprint"]
)
def test_html_leaves_out_what_is_not_read(left_out: str) -> None:
    assert left_out not in _read(PAGE).text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("<p>open <b>never closed", "open **never closed**"),
        ("</div></p>x<table><tr><td>y", "y"),
        ("no tags at all", "no tags at all"),
        ("<p>a<p>b", "b"),
        ("<!doctype html><html><body><p>x</body></html><p>after the end", "after the end"),
        ("<html><body>one</body></html><html><body>two</body></html>", "two"),
        ("<p>x <!-- comment --> y", "y"),
        ("<p>&nbsp;&#120;&unknown;", "x"),
        (b"<meta charset=iso-8859-1><p>gr\xfc\xdfe", "grüße"),
        ("<p>grüße 漢字".encode(), "grüße 漢字"),
        ("<html><p>grüße".encode("utf-16"), "grüße"),
    ],
)
def test_malformed_html_is_still_read(content: bytes | str, expected: str) -> None:
    assert expected in _read(content).text


@pytest.mark.parametrize("content", ["<p>a&#0;b\0c<title>t&#0;\0</title>", "<p>&#xD800;x<title>&#xDFFF;</title>"])
def test_html_never_yields_what_cannot_be_stored(content: str) -> None:
    parsed = _read(content)
    for text in (parsed.text, parsed.title or ""):
        assert "\0" not in text
        text.encode()


@pytest.mark.parametrize(
    "content", ["", "<html></html>", "<p> &nbsp; </p>", "<script>x</script>", "<!-- x -->", "<nav>x</nav>"]
)
def test_html_without_text_is_refused(content: str) -> None:
    assert "no text" in _refusal(content, HTML)


def test_a_list_is_numbered_from_where_it_says() -> None:
    items = "<li>a<li><li>b<ul><li>c</ul>d<li>e<br>f"
    parsed = _read(f"<ol start=9>{items}</ol><ol>{items}</ol><ol start=x><li>g</ol>")
    assert [line.strip() for line in parsed.text.splitlines() if line[:1].isdigit()] == (
        ["9. a", "11. b", "12. e", "1. a", "3. b", "4. e", "1. g"]
    )


@pytest.mark.parametrize("part", ["<li>x", "<tr><td>x<td>y", "<li><b>x</b>"])
def test_a_page_is_read_in_linear_time(part: str) -> None:
    """Four times the page may take nine times as long, not sixteen."""
    seconds = []
    for count in (1_500, 6_000):
        page = f"<ol>{part * count}" if "li" in part else f"<table>{part * count}"
        assert _read(page).text.count("x") == count
        seconds.append(cpu_seconds(lambda page=page: _read(page)))  # type: ignore[misc]
    assert seconds[1] < 9 * seconds[0] + 0.1


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (f"{'1' * 20_000}x,b\n1,2\n", CSV),
        (f"00:01.000 --> 00:02.000\n{'<v.' * 20_000}\n", VTT),
        (f'<p style="opacity:{"0" * 20_000}x">x', HTML),
    ],
)
def test_what_begins_like_a_mark_is_looked_at_once(content: str, kind: str) -> None:
    assert cpu_seconds(lambda: read(content.encode(), kind, max_chars=100_000)) < 2


def test_nested_marks_are_looked_through_once() -> None:
    seconds = []
    for mark in ("", "aria-hidden=true class=cookie-banner"):
        page = f"<div {mark}>" * 200 + "<b>x</b>" * 4_000 + "x" * 6_000 + "<p>y"
        assert _read(page).text.endswith("y")
        seconds.append(cpu_seconds(lambda page=page: _read(page)))  # type: ignore[misc]
    assert seconds[1] < 5 * seconds[0] + 0.1


def test_what_is_below_an_element_is_not_looked_through_once_for_each_above_it() -> None:
    seconds = []
    for depth in (40, 400):
        page = "<div>" * depth + "<b>x</b>" * 4_000
        seconds.append(cpu_seconds(lambda page=page: _read(page)))  # type: ignore[misc]
    assert seconds[1] < 5 * seconds[0] + 0.1


def test_a_page_is_read_to_the_depth_that_is_promised() -> None:
    assert _read("<div>" * 490 + "inmost").text == "inmost"
    assert "deeper than 500" in _refusal("<div>" * 501 + "x", HTML)


def _pdf(*pages: str, title: str = "") -> bytes:
    """A PDF by hand: each page one line of Helvetica."""
    count = len(pages)
    bodies = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    kids = []
    for number, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET"
        kids.append(f"{3 + 2 * number} 0 R")
        bodies += [
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {4 + 2 * number} 0 R "
            "/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
            f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
        ]
    bodies[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {count} >>"
    bodies.append(f"<< /Title ({title}) >>")
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(bodies, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size = len(bodies) + 1
    trailer = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R /Info {len(bodies)} 0 R >>\n"
    return out + f"{trailer}startxref\n{len(out)}\n%%EOF\n".encode()


def test_a_pdf_gives_each_page_with_its_offset_and_title() -> None:
    parsed = _read(_pdf("First page", "Second page", "Third", title="By hand"), PDF)
    assert parsed.title == "By hand"
    assert not parsed.markdown
    assert len(parsed.pages) == 3
    starts = [parsed.text[start:].split()[0] for start in parsed.pages]
    assert starts == ["First", "Second", "Third"]


def test_an_empty_page_keeps_its_number() -> None:
    parsed = _read(_pdf("First", "", "Third"), PDF)
    assert len(parsed.pages) == 3
    assert parsed.text[parsed.pages[2] :] == "Third"
    assert parsed.text[parsed.pages[1] : parsed.pages[2]].strip() == ""


def test_the_example_pdf_is_read(repository: Path) -> None:
    parsed = _read((repository / "examples" / "handbook" / "interlibrary.pdf").read_bytes(), PDF)
    assert parsed.pages[0] == 0
    assert "library" in parsed.text.lower()
    assert "\r" not in parsed.text


def test_pdfs_that_cannot_be_read_say_why() -> None:
    assert "damaged" in _refusal(b"%PDF-1.7 and nothing else", PDF)
    assert "damaged" in _refusal(b"", PDF)
    assert "scanned" in _refusal(_pdf(""), PDF)
    sealed = f"/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <{'11' * 32}> /U <{'22' * 32}> >> /ID [<00> <00>] /Root"
    assert "remove its password" in _refusal(_pdf("hidden").replace(b"/Root", sealed.encode()), PDF)


def test_a_text_longer_than_allowed_is_refused() -> None:
    long = "x" * (MAX + 1)
    for content, kind in ((long.encode(), TEXT), (f"<p>{long}".encode(), HTML), (_pdf(*["y" * 40] * (MAX // 40)), PDF)):
        assert str(MAX) in _refusal(content, kind)
    assert len(_read(b"x" * MAX, TEXT).text) == MAX


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"plain", "plain"),
        ("grüße 漢字 👍".encode(), "grüße 漢字 👍"),
        (codecs.BOM_UTF8 + b"marked", "\ufeffmarked"),  # a character of the user's copy, where offsets must hold
        ("grüße".encode("utf-16"), "grüße"),
        (codecs.BOM_UTF16_BE + "grüße".encode("utf-16-be"), "grüße"),
        ("without a mark".encode("utf-16-le"), "without a mark"),
        ("without a mark".encode("utf-16-be"), "without a mark"),
        (b"gr\xfc\xdfe", "grüße"),
        ("Ça coûte 5 € à l’école".encode("cp1252"), "Ça coûte 5 € à l’école"),
        ("Книги можно брать на четыре недели.".encode("cp1251"), "Книги можно брать на четыре недели."),
        ("本は四週間借りることができます。".encode("cp932"), "本は四週間借りることができます。"),
        (b"plain " * 10_000 + b"caf\xe9", "plain " * 10_000 + "café"),
        (b" \r\n kept \t exactly \r", " \r\n kept \t exactly \r"),
    ],
)
def test_text_is_decoded_and_otherwise_kept(content: bytes, expected: str) -> None:
    assert _read(content, TEXT) == Parsed(expected)
    assert _read(content, MARKDOWN) == Parsed(expected, markdown=True)


@pytest.mark.parametrize("kind", [TEXT, MARKDOWN])
def test_text_that_is_not_text_is_refused(kind: str) -> None:
    assert "byte 11" in _refusal("grüße 漢字".encode()[:-1], kind)
    assert "NUL" in _refusal(b"a\0b", kind)
    assert "not UTF-8" in _refusal("grüße, grüße ".encode() + b"\xed\xa0\x80", kind)
    assert "no known encoding" in _refusal(bytes(range(128, 256)) * 3, kind)
    assert "known encoding" in _refusal(codecs.BOM_UTF16_LE + b"odd", kind)
    assert "no text" in _refusal(b" \n\t ", kind)


def test_an_unknown_kind_is_refused() -> None:
    assert "image/png" in _refusal(b"x", "image/png")
