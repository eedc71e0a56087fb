"""PowerPoint: each slide is a page with its title as heading; text, tables, and notes marked as such.

Footers, dates and slide numbers are left out, and so are pictures, diagrams and charts.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from pptx import Presentation
from pptx.enum.shapes import PP_PLACEHOLDER

from ingestion.readers.archives import open_office
from ingestion.readers.base import CannotRead, Draft, Parsed, unmarked
from ingestion.readers.tables import markdown_table

MAX_SLIDES = 5_000
NOTES = "Notes:"
_REPEATED = (PP_PLACEHOLDER.DATE, PP_PLACEHOLDER.FOOTER, PP_PLACEHOLDER.SLIDE_NUMBER)


def read_pptx(content: bytes, max_chars: int) -> Parsed:
    open_office(content).close()
    try:
        presentation = Presentation(io.BytesIO(content))
    except ValueError as error:
        raise CannotRead("The file is a template, a show or holds macros; save it as .pptx and send that.") from error
    if len(presentation.slides) > MAX_SLIDES:
        raise CannotRead(f"The presentation has {len(presentation.slides)} slides, at most {MAX_SLIDES} are read.")
    draft, empty = Draft(max_chars), True
    for number, slide in enumerate(presentation.slides, 1):
        blocks = [*_blocks(slide)]
        empty = empty and not blocks
        draft.page()
        title = slide.shapes.title
        # Without a heading of its own, a slide would stand under that of the slide before it.
        draft.heading(1, (title.text_frame.text if title is not None else "") or (f"Slide {number}" if blocks else ""))
        empty = empty and not (title is not None and title.text_frame.text.strip())
        for block in blocks:
            draft.add(block)
    if empty:
        raise CannotRead("The presentation has no text; pictures are not read.")
    return draft.parsed(title=presentation.core_properties.title)


def _blocks(slide: Any) -> Iterator[str]:
    title = slide.shapes.title
    for shape in _shapes(slide.shapes):
        if title is not None and shape.shape_id == title.shape_id:
            continue
        if shape.has_text_frame:
            yield from filter(None, [_text(shape.text_frame)])
        elif getattr(shape, "has_table", False):
            yield from markdown_table([[cell.text for cell in row.cells] for row in shape.table.rows])
    frame = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
    if frame is not None and (notes := _text(frame)):
        yield f"{NOTES} {notes}"


def _shapes(shapes: Any) -> Iterator[Any]:
    """In the order of the file, groups opened."""
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _shapes(shape.shapes)
        elif not (shape.is_placeholder and shape.placeholder_format.type in _REPEATED):
            yield shape


def _text(frame: Any) -> str:
    """Paragraphs as lines; those below the first level as items, indented."""
    lines = []
    for paragraph in frame.paragraphs:
        if text := " ".join(paragraph.text.split()):
            lines.append(f"{'  ' * (paragraph.level - 1)}- {text}" if paragraph.level else unmarked(text))
    return "\n".join(lines)
