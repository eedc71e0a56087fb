"""Tables as Markdown: in pieces of the size of a chunk, each with the headers, since a row alone says little. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

PIECE_CHARS = 1_000  # about 250 tokens
MAX_REPEATED_CHARS = 300  # of the headers


def markdown_table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Pieces of a table whose first row holds the headers; rows of different lengths are filled up."""
    rows = [[_cell(text) for text in row] for row in rows]
    rows = [row for row in rows if any(row)]
    if not rows:
        return
    width = max(map(len, rows))
    lines = [f"| {' | '.join([*row, *[''] * (width - len(row))])} |" for row in rows]
    head = [lines[0], f"|{' --- |' * width}"]
    piece, chars = list(head), 0
    for line in lines[1:]:
        if chars and chars + len(line) > PIECE_CHARS and len(lines[0]) <= MAX_REPEATED_CHARS:
            yield "\n".join(piece)
            piece, chars = list(head), 0
        piece.append(line)
        chars += len(line)
    yield "\n".join(piece)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
