"""Subtitles and transcripts, SRT and WebVTT: what is said, each cue a line behind the time at which it begins."""

from __future__ import annotations

import html
import re

from ingestion.readers.base import CannotRead, Draft, Parsed
from ingestion.readers.text import decode

_CUE = re.compile(r"[ \t]*(?:(\d{1,3}):)?(\d{1,2}):(\d{2})[.,]\d{1,3}[ \t]*-->")
_SPEAKER = re.compile(r"<v(?:\.[^\s>]{0,200})?[ \t]{1,20}([^>]{1,200})>")
_TAG = re.compile(r"</?[A-Za-z0-9:][^<>]{0,200}>|\{\\[^{}]{0,200}\}")


def read_subtitles(content: bytes, max_chars: int) -> Parsed:
    """Blocks without a time are notes, styles and the mark at the beginning."""
    draft = Draft(max_chars)
    cues = 0
    for block in re.split(r"\n[ \t]*\n", decode(content).replace("\r\n", "\n").replace("\r", "\n")):
        lines = block.split("\n")
        at = next((number for number, line in enumerate(lines[:3]) if _CUE.match(line)), None)
        if at is None:
            continue
        cues += 1
        if said := _said(lines[at + 1 :]):
            draft.add(f"[{_time(lines[at])}] {said}", after="\n")
    if not cues:
        raise CannotRead("The file has no cues with times (00:00:01,000 --> 00:00:02,000); send it as .txt.")
    return draft.parsed(markdown=False)


def _time(line: str) -> str:
    match = _CUE.match(line)
    hours, minutes, seconds = match.groups() if match else (None, "0", "0")
    return f"{int(hours or 0):02}:{int(minutes):02}:{int(seconds):02}"


def _said(lines: list[str]) -> str:
    text = _SPEAKER.sub(r"\1: ", " ".join(lines))
    return " ".join(html.unescape(_TAG.sub("", text)).split())
