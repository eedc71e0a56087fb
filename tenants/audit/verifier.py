"""Reads an exported chain, line by line, and says what of it was edited, removed, inserted or moved, and where.

Works alike on what a service streams and on a file far from any service. Needs memory for one line and the findings only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tenants.audit.chain import Checkpoint, genesis, link

MAX_FINDINGS = 1_000  #: that are listed; beyond it they are counted


@dataclass(frozen=True, slots=True)
class Finding:
    """`kind` is one of

    changed: the entry, or its place, is not what was sealed · missing: no entry stands there · inserted: one too many does ·
    rewritten: entries of this range were changed and their hashes made anew · unsigned: sealed by nobody with the key ·
    checkpoint: of this range is missing, altered, or signed by an unknown key · archive: it differs from the archived one ·
    truncated: the export does not end as exports do · malformed: a line that is none of an export
    """

    kind: str
    first: int  #: positions that it concerns, from `first` to `last`
    last: int
    detail: str
    entry_id: str | None = None


@dataclass(slots=True)
class Report:
    chain: str = ""
    entries: int = 0  #: that are sealed
    checkpoints: int = 0
    unsealed: int = 0  #: not sealed yet: nothing can be said of them
    after: int = 0  #: position behind which it begins; what is before was cut off by age, or not asked for
    through: int = 0  #: position through which it was verified: that of the last checkpoint
    keys: list[str] = field(default_factory=list)  #: public keys that signed it
    findings: list[Finding] = field(default_factory=list)
    more_findings: int = 0

    @property
    def sound(self) -> bool:
        return not self.findings


class Verifier:
    """`trusted`: public keys, hexadecimal; None takes those that the export names. `archived`: checkpoints kept elsewhere."""

    def __init__(self, trusted: Iterable[str] | None = None, archived: Iterable[Checkpoint] = ()) -> None:
        self._trusted = None if trusted is None else frozenset(trusted)
        self._archived = {(one.first, one.last): one for one in archived}
        self.report = Report()
        self._position, self._hash = 0, b""  # of the entry before
        self._sealed, self._head = 0, b""  # of the checkpoint before
        self._begun, self._ended, self._in_batch = False, False, False
        self._reads = {"entry": self._entry, "checkpoint": self._checkpoint, "header": self._header, "end": self._end}

    def line(self, text: str | bytes) -> None:
        try:
            record = json.loads(text)
            if self._ended or (record["kind"] == "header") == self._begun:
                raise ValueError("a line before the first or after the last")
            self._begun = True
            self._reads[record["kind"]](record)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            self._find("malformed", self._position, self._position, "A line is none of an export.")

    def finish(self) -> Report:
        if not self._ended:
            self._find("truncated", self._position, self._position, "The export has no end: something is missing after this.")
        for first, last in sorted(self._archived):
            if first > 0 and last > self.report.after:
                self._find("archive", first, last, "The archive has a checkpoint that is not there any more.")
        return self.report

    def _header(self, record: Mapping[str, Any]) -> None:
        chain = str(record["chain"])
        self.report.chain = chain
        if self._trusted is None:
            self._trusted = frozenset(map(str, record["keys"]))
        self._hash = self._head = genesis(chain)
        if record.get("anchor") is not None:
            self._begin(Checkpoint.parse(record["anchor"]))

    def _begin(self, anchor: Checkpoint) -> None:
        if not self._is_ours(anchor):
            self._find("checkpoint", 1, anchor.last, "What stands for the entries before is not signed by a known key.")
        self._position = self._sealed = self.report.after = self.report.through = anchor.last
        self._hash = self._head = bytes.fromhex(anchor.head)
        ends = [one for (first, last), one in self._archived.items() if first > 0 and last == anchor.last]
        if any(one.head != anchor.head for one in ends):
            self._find("archive", anchor.last, anchor.last, "The archive has another head where this begins.")

    def _entry(self, record: Mapping[str, Any]) -> None:
        entry, position = record["entry"], record["position"]
        if position is None:
            self.report.unsealed += 1
            return
        self.report.entries += 1
        given = bytes.fromhex(record["hash"] or "")
        if position <= self._position:
            self._find("inserted", position, position, "More than one entry has this place.", entry["id"])
            return
        if position > self._position + 1:
            self._find("missing", self._position + 1, position - 1, "No entry has this place.")
        elif link(self._hash, entry) != given:
            self._find("changed", position, position, "It does not give the hash that it was sealed with.", entry["id"])
        self._position, self._hash = position, given

    def _checkpoint(self, record: Mapping[str, Any]) -> None:
        checkpoint = Checkpoint.parse(record)
        first, last = checkpoint.first, checkpoint.last
        self.report.checkpoints += 1
        ours = self._is_ours(checkpoint)
        if not ours:
            self._find("checkpoint", first, last, "It is not signed by a known key.")
        self._follows(checkpoint)
        self._agrees(checkpoint)
        if ours:
            self._closes(checkpoint)
            self._position = max(self._position, last)
            self._sealed, self._hash, self._head = last, bytes.fromhex(checkpoint.head), bytes.fromhex(checkpoint.head)
            self.report.through = last
        self._in_batch = False

    def _is_ours(self, checkpoint: Checkpoint) -> bool:
        signed = checkpoint.chain == self.report.chain and checkpoint.is_signed_by(self._trusted or frozenset())
        if signed and checkpoint.key not in self.report.keys:
            self.report.keys.append(checkpoint.key)
        return signed

    def _follows(self, checkpoint: Checkpoint) -> None:
        if checkpoint.first > self._sealed + 1:
            self._find("checkpoint", self._sealed + 1, checkpoint.first - 1, "No checkpoint covers these entries.")
        elif checkpoint.first <= self._sealed or bytes.fromhex(checkpoint.before) != self._head:
            self._find("checkpoint", checkpoint.first, checkpoint.last, "It does not follow from the one before.")

    def _agrees(self, checkpoint: Checkpoint) -> None:
        archived = self._archived.pop((checkpoint.first, checkpoint.last), None)
        if archived is not None and archived != checkpoint:
            self._find("archive", checkpoint.first, checkpoint.last, "The archive has another checkpoint of these entries.")

    def _closes(self, checkpoint: Checkpoint) -> None:
        """Whether its entries lead to the hash that was signed."""
        if self._position < checkpoint.last:
            self._find("missing", self._position + 1, checkpoint.last, "No entry has this place.")
        elif self._hash.hex() != checkpoint.head and not self._in_batch:
            detail = "Their hashes fit one another and not the signed head: they were made anew."
            self._find("rewritten", checkpoint.first, checkpoint.last, detail)

    def _end(self, _record: Mapping[str, Any]) -> None:
        self._ended = True
        if self._position > self._sealed:
            self._find("unsigned", self._sealed + 1, self._position, "They have hashes that no checkpoint covers.")

    def _find(self, kind: str, first: int, last: int, detail: str, entry_id: str | None = None) -> None:
        self._in_batch = True
        if len(self.report.findings) < MAX_FINDINGS:
            self.report.findings.append(Finding(kind, first, last, detail, entry_id))
        else:
            self.report.more_findings += 1
