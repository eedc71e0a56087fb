"""Tables as Markdown: in pieces of the size of a chunk, each with the headers, since a row alone says little. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

PIECE_CHARS = 400  # headers included: 170 tokens of mere numbers, and a chunk has 212
MAX_REPEATED_CHARS = 250  # of the headers


def markdown_table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Pieces of a table whose first row holds the headers; rows of different lengths are filled up."""
    rows = [[_cell(text) for text in row] for row in rows]
    rows = [row for row in rows if any(row)]
    if not rows:
        return
    width = max(map(len, rows))
    lines = [f"| {' | '.join([*row, *[''] * (width - len(row))])} |" for row in rows]
    head = [lines[0], f"|{' --- |' * width}"]
    repeated = sum(map(len, head))
    piece, chars = list(head), repeated
    for line in lines[1:]:
        if len(piece) > len(head) and chars + len(line) > PIECE_CHARS and repeated <= MAX_REPEATED_CHARS:
            yield "\n".join(piece)
            piece, chars = list(head), repeated
        piece.append(line)
        chars += len(line)
    yield "\n".join(piece)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
