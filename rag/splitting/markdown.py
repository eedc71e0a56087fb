"""What of Markdown matters to chunks: headings and their paths, and fenced code, which has none."""

from __future__ import annotations

import bisect
import io
import re

_HEADING = re.compile(r"(#{1,6})[ \t]+(.*)")  # no more: a pattern that also trims the end takes cubic time on blanks
_FENCE = re.compile(r" {0,3}(```+|~~~+)(.*)")


def heading(line: str) -> tuple[int, str] | None:
    """Level and name; a closing row of # goes, one that belongs to the name ("C#") stays."""
    match = _HEADING.match(line)
    if match is None:
        return None
    name = match[2].strip()
    opened = name.rstrip("#")
    if opened != name and (not opened or opened[-1].isspace()):
        name = opened.rstrip()
    return (len(match[1]), name) if name else None


def fence_after(fence: str, line: str) -> str:
    """The fence of code that is open behind this line: only a bare mark closes one, and inline code opens none."""
    mark = _FENCE.match(line)
    if mark is None:
        return fence
    if fence:
        return "" if mark[1].startswith(fence) and not mark[2].strip() else fence
    return "" if mark[1][0] == "`" and "`" in mark[2] else mark[1]


class Headings:
    """The path of headings above each offset."""

    def __init__(self, text: str) -> None:
        self._starts: list[int] = []
        self._paths: list[tuple[str, ...]] = []
        path: list[tuple[int, str]] = []
        fence, offset = "", 0
        for line in io.StringIO(text, newline=""):
            before, fence = fence, fence_after(fence, line)
            if not before and not fence and (found := heading(line.rstrip("\r\n").removeprefix("\ufeff"))):
                path = [above for above in path if above[0] < found[0]] + [found]
                self._starts.append(offset)
                self._paths.append(tuple(name for _, name in path))
            offset += len(line)

    def at(self, offset: int) -> tuple[str, ...]:
        index = bisect.bisect_right(self._starts, offset)
        return self._paths[index - 1] if index else ()
