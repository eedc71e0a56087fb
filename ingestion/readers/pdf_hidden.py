"""Text of a PDF page that a reader of the page does not see: invisible, transparent, white on white, tiny or off the page.

Invisible text over a picture is what text recognition leaves behind a scan, and white text on something dark is seen. Text
under something that was painted over it is not found.
"""

from __future__ import annotations

import ctypes
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pypdfium2 as pdfium
import pypdfium2.raw as raw

MAX_GROUNDS = 200  # areas of a page that text is looked for on: the largest
MAX_COUNTED = 500  # pieces of hidden text of a page: each is looked for among all of the page's characters
MAX_DEPTH = 4  # of forms in forms
MIN_POINTS = 2.0  # in height; footnote marks have 4 and more
WHITE, OPAQUE = 250, 10  # of 255: from here on white, and down to here seen
_INVISIBLE = (raw.FPDF_TEXTRENDERMODE_INVISIBLE, raw.FPDF_TEXTRENDERMODE_CLIP)
_STROKED = raw.FPDF_TEXTRENDERMODE_STROKE

Matrix = tuple[float, float, float, float, float, float]
Box = tuple[float, float, float, float]  # left, bottom, right, top
_IDENTITY: Matrix = (1, 0, 0, 1, 0, 0)
#: PDFium answers into these: made once, since they are half of the time. A child has one thread.
_SIDES, _PARTS, _FOUND = [ctypes.c_float() for _ in range(4)], [ctypes.c_uint() for _ in range(4)], raw.FS_MATRIX()


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    """An object of a page, with the matrix of the forms around it."""

    handle: Any
    kind: int
    matrix: Matrix


def hidden_chars(page: pdfium.PdfPage, text: pdfium.PdfTextPage) -> int:
    """How many characters, blanks not counted; of a page with very many pieces of hidden text, those of the first."""
    placed = [*_objects(page)]
    suspects = [(item, reason) for item in placed if item.kind == raw.FPDF_PAGEOBJ_TEXT and (reason := _suspicion(item))]
    paper = page.get_bbox()
    outside = [item for item in placed if item.kind == raw.FPDF_PAGEOBJ_TEXT and _outside(_box(item), paper)]
    if not suspects and not outside:
        return 0
    pictures = [_box(item) for item in placed if item.kind in (raw.FPDF_PAGEOBJ_IMAGE, raw.FPDF_PAGEOBJ_SHADING)]
    darks = [*pictures, *(_box(item) for item in placed if item.kind == raw.FPDF_PAGEOBJ_PATH and _is_dark(item))]
    behind = {"invisible": _largest(pictures), "white": _largest(darks), "tiny": []}
    hidden = outside + [item for item, reason in suspects if not _within(_box(item), behind[reason])]
    return sum(_chars(item, text) for item in islice(dict.fromkeys(hidden), MAX_COUNTED))


def _objects(page: pdfium.PdfPage) -> Iterator[_Placed]:
    for place in range(raw.FPDFPage_CountObjects(page)):
        yield from _opened(raw.FPDFPage_GetObject(page, place), _IDENTITY, 0)


def _opened(handle: Any, matrix: Matrix, depth: int) -> Iterator[_Placed]:
    kind = raw.FPDFPageObj_GetType(handle)
    if kind != raw.FPDF_PAGEOBJ_FORM:
        yield _Placed(handle, kind, matrix)
    elif depth < MAX_DEPTH:
        inner = _times(_matrix(handle), matrix)
        for place in range(raw.FPDFFormObj_CountObjects(handle)):
            yield from _opened(raw.FPDFFormObj_GetObject(handle, place), inner, depth + 1)


def _suspicion(item: _Placed) -> str | None:
    mode = raw.FPDFTextObj_GetTextRenderMode(item.handle)
    if mode in _INVISIBLE:
        return "invisible"
    raw.FPDFTextObj_GetFontSize(item.handle, _SIDES[0])
    _, _, c, d, _, _ = _times(_matrix(item.handle), item.matrix)
    if _SIDES[0].value * (c * c + d * d) ** 0.5 < MIN_POINTS:
        return "tiny"
    red, green, blue, alpha = _color(item.handle)
    return "white" if mode != _STROKED and (min(red, green, blue) >= WHITE or alpha <= OPAQUE) else None


def _is_dark(item: _Placed) -> bool:
    """Whether it is an area of another colour than paper."""
    fill, stroke = ctypes.c_int(), ctypes.c_int()
    if not raw.FPDFPath_GetDrawMode(item.handle, fill, stroke) or fill.value == raw.FPDF_FILLMODE_NONE:
        return False
    *rgb, alpha = _color(item.handle)
    return min(rgb) < WHITE and alpha > OPAQUE


def _chars(item: _Placed, text: pdfium.PdfTextPage) -> int:
    size = raw.FPDFTextObj_GetText(item.handle, text, None, 0)
    buffer = ctypes.create_string_buffer(size)
    raw.FPDFTextObj_GetText(item.handle, text, ctypes.cast(buffer, ctypes.POINTER(raw.FPDF_WCHAR)), size)
    return len("".join(buffer.raw.decode("utf-16-le", "ignore").replace("\0", "").split()))


def _color(handle: Any) -> tuple[int, int, int, int]:
    if not raw.FPDFPageObj_GetFillColor(handle, *_PARTS):
        return 0, 0, 0, 255
    red, green, blue, alpha = _PARTS
    return red.value, green.value, blue.value, alpha.value


def _matrix(handle: Any) -> Matrix:
    raw.FPDFPageObj_GetMatrix(handle, _FOUND)
    return _FOUND.a, _FOUND.b, _FOUND.c, _FOUND.d, _FOUND.e, _FOUND.f


def _times(first: Matrix, then: Matrix) -> Matrix:
    if then is _IDENTITY:
        return first
    a, b, c, d, e, f = first
    p, q, r, s, t, u = then
    return a * p + b * r, a * q + b * s, c * p + d * r, c * q + d * s, e * p + f * r + t, e * q + f * s + u


def _box(item: _Placed) -> Box:
    raw.FPDFPageObj_GetBounds(item.handle, *_SIDES)
    left, bottom, right, top = _SIDES[0].value, _SIDES[1].value, _SIDES[2].value, _SIDES[3].value
    if item.matrix is _IDENTITY:
        return left, bottom, right, top
    a, b, c, d, e, f = item.matrix
    xs = [a * x + c * y + e for x in (left, right) for y in (bottom, top)]
    ys = [b * x + d * y + f for x in (left, right) for y in (bottom, top)]
    return min(xs), min(ys), max(xs), max(ys)


def _outside(box: Box, page: Box) -> bool:
    return box[2] < page[0] or box[0] > page[2] or box[3] < page[1] or box[1] > page[3]


def _largest(boxes: list[Box]) -> list[Box]:
    return heapq.nlargest(MAX_GROUNDS, boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))


def _within(box: Box, others: list[Box]) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return any(left <= x <= right and bottom <= y <= top for left, bottom, right, top in others)
