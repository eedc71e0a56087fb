"""What stands in a Word document stands in its text: structure as Markdown, and nothing tracked, boxed or nested is lost."""

from __future__ import annotations

import io
import zipfile

import docx
import pytest

from ingestion.media import DOCX
from ingestion.readers.base import CannotRead, Parsed
from ingestion.readers.registry import read
from tests.documents import repacked, saved, word, word_with


def _read(content: bytes) -> Parsed:
    return read(content, DOCX, max_chars=100_000)


def test_structure_becomes_markdown() -> None:
    parsed = _read(word())
    assert parsed.markdown
    assert parsed.title == "House rules"
    assert parsed.text == (
        "# Loans\n\nBooks may be kept for four weeks.\n\n## Fees\n\n"
        "| kind | fee |\n| --- | --- |\n| late \\| lost | 20 cents a day |\n\n"
        "1. first\n2. second\n- loose\n\n\\# no heading"
    )


def test_nothing_is_lost_where_the_library_does_not_look() -> None:
    parsed = _read(
        word_with(
            "<w:sdt><w:sdtContent><w:p><w:r><w:t>controlled</w:t></w:r></w:p></w:sdtContent></w:sdt>"
            "<w:p><w:ins w:id='1'><w:r><w:t>inserted</w:t><w:tab/><w:t>later</w:t></w:r></w:ins>"
            "<w:del w:id='2'><w:r><w:delText>deleted</w:delText></w:r></w:del></w:p>"
            "<w:p><w:hyperlink><w:r><w:t>linked</w:t><w:br/><w:t>on</w:t></w:r></w:hyperlink></w:p>"
            "<w:p><w:r><w:pict><w:txbxContent><w:p><w:r><w:t>boxed</w:t></w:r></w:p></w:txbxContent></w:pict></w:r></w:p>"
        )
    )
    assert parsed.text == "controlled\n\ninserted\tlater\n\nlinked\non\n\nboxed"


def test_tables_in_tables_and_merged_cells_are_kept_once() -> None:
    cell = "<w:tc>{}<w:p><w:r><w:t>{}</w:t></w:r></w:p></w:tc>"
    inner = f"<w:tbl><w:tr>{cell.format('', 'inner')}</w:tr></w:tbl>"
    wide = cell.format("<w:tcPr><w:gridSpan w:val='2'/></w:tcPr>", "wide")
    below = cell.format("<w:tcPr><w:vMerge/></w:tcPr>", "hidden")
    parsed = _read(
        word_with(
            f"<w:tbl><w:tr>{wide}{cell.format('', 'c')}</w:tr>"
            f"<w:tr><w:tc>{inner}<w:p/></w:tc>{below}{cell.format('', 'f')}</w:tr></w:tbl>"
        )
    )
    assert parsed.text == "| wide |  | c |\n| --- | --- | --- |\n| inner |  | f |"


def test_headings_are_known_by_name_outline_and_ancestry() -> None:
    content = word()
    style = (
        '<w:style w:type="paragraph" w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>'
        '<w:style w:type="paragraph" w:styleId="own"><w:name w:val="Own"/><w:basedOn w:val="berschrift1"/></w:style>'
        '<w:style w:type="paragraph" w:styleId="loop"><w:name w:val="Loop"/><w:basedOn w:val="loop"/></w:style>'
    )
    styles = (
        '<?xml version="1.0"?><w:styles xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
        f"{style}</w:styles>"
    )
    body = "".join(f"<w:p><w:pPr>{how}</w:pPr><w:r><w:t>{name}</w:t></w:r></w:p>" for how, name in HEADINGS.items())
    content = repacked(word_with(body), {"word/styles.xml": styles.encode()})
    assert _read(content).text == "# by name\n\n# by ancestor\n\n### by outline\n\nin a loop"


HEADINGS = {
    "<w:pStyle w:val='berschrift1'/>": "by name",
    "<w:pStyle w:val='own'/>": "by ancestor",
    "<w:outlineLvl w:val='2'/>": "by outline",
    "<w:pStyle w:val='loop'/>": "in a loop",
}


def test_a_long_table_repeats_its_headers() -> None:
    row = "<w:tr>{}</w:tr>"
    cell = "<w:tc><w:p><w:r><w:t>{}</w:t></w:r></w:p></w:tc>"
    rows = [row.format(cell.format(f"{name} {'x' * 200}")) for name in ["head", *range(20)]]
    text = _read(word_with(f"<w:tbl>{''.join(rows)}</w:tbl>")).text
    pieces = text.split("\n\n")
    assert len(pieces) > 3
    assert all(piece.startswith("| head ") for piece in pieces)
    assert sum(piece.count("\n") - 1 for piece in pieces) == 20


def test_a_document_without_text_is_refused() -> None:
    with pytest.raises(CannotRead, match="no text"):
        _read(saved(docx.Document()))


def _changed(content: bytes, part: str, before: str, after: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        old = archive.read(part).decode()
    assert before in old
    return repacked(content, {part: old.replace(before, after).encode()})


def test_footnotes_stand_at_the_end_and_are_marked_where_they_belong() -> None:
    content = word_with(
        "<w:p><w:r><w:t>Books</w:t></w:r><w:r><w:footnoteReference w:id='2'/></w:r></w:p>"
        "<w:p><m:oMath xmlns:m='http://schemas.openxmlformats.org/officeDocument/2006/math'><m:r><m:t>a+b</m:t></m:r></m:oMath></w:p>"
    )
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    link = f'<Relationship Id="rId99" Type="{relations}/footnotes" Target="footnotes.xml"/></Relationships>'
    content = _changed(content, "word/_rels/document.xml.rels", "</Relationships>", link)
    notes = (
        '<w:footnotes xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
        '<w:footnote w:type="separator" w:id="0"><w:p><w:r><w:t>line</w:t></w:r></w:p></w:footnote>'
        '<w:footnote w:id="2"><w:p><w:r><w:t>and records</w:t></w:r></w:p></w:footnote></w:footnotes>'
    )
    assert _read(repacked(content, {"word/footnotes.xml": notes.encode()})).text == "Books[^2]\n\na+b\n\n[^2]: and records"


def test_templates_and_macros_are_refused_with_what_to_do() -> None:
    content = _changed(word(), "[Content_Types].xml", "wordprocessingml.document.main", "wordprocessingml.template.main")
    with pytest.raises(CannotRead, match="save it as"):
        _read(content)
