"""What stands on slides stands in their text, slide by slide."""

from __future__ import annotations

import pptx
import pytest

from ingestion.media import PPTX
from ingestion.readers.base import CannotRead, Parsed
from ingestion.readers.registry import read
from tests.documents import saved, slides


def _read(content: bytes) -> Parsed:
    return read(content, PPTX, max_chars=100_000)


def test_slides_become_pages() -> None:
    parsed = _read(slides())
    assert parsed.markdown
    assert parsed.title == "Rules in short"
    first, second = parsed.text[: parsed.pages[1]], parsed.text[parsed.pages[1] :]
    assert first == ("# Loans\n\nBooks may be kept for four weeks.\n- longer on request\n\nNotes: Say it slowly.\n\n")
    assert second == "# Slide 2\n\n| kind | fee |\n| --- | --- |\n| late | 20 cents |\n\nin a group"
    assert len(parsed.pages) == 3


def test_an_empty_slide_between_others_keeps_its_number() -> None:
    presentation = pptx.Presentation()
    for title in ("One", "", "Three"):
        presentation.slides.add_slide(presentation.slide_layouts[5]).shapes.title.text = title
    parsed = _read(saved(presentation))
    assert parsed.text[parsed.pages[2] :] == "# Three"
    assert parsed.text[parsed.pages[1] : parsed.pages[2]] == ""


def test_a_presentation_without_text_is_refused() -> None:
    presentation = pptx.Presentation()
    presentation.slides.add_slide(presentation.slide_layouts[6])
    for empty in (presentation, pptx.Presentation()):
        with pytest.raises(CannotRead, match="no text"):
            _read(saved(empty))
