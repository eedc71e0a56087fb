"""Texts by which a prepared model is compared with the original before it is trusted: short, long, code, many scripts."""

from __future__ import annotations

import numpy as np

from rag.embedding.runtime import Matrix

_SENTENCE = "The committee approved the revised budget for the northern depot after a short discussion of its running costs."

PROBES: tuple[str, ...] = (
    "loan",
    "How long may a book be kept?",
    "Refunds are paid within fourteen days of the return of the goods, to the account that was charged.",
    "ERR_CONNECTION_RESET (101) at 10.0.0.7:8443",
    "def settle(self, hold_id: str, tokens: int) -> int:\n    return self._ledger.close(hold_id, min(tokens, self.held))",
    "SELECT id, SUM(amount) FROM invoices WHERE due < '2026-01-01' GROUP BY id HAVING SUM(amount) > 1000;",
    '| part | stock |\n|---|---|\n| valve 3/4" | 17 |\n| gasket | 240 |',
    "Überweisungen über 10.000 € müssen vorab schriftlich genehmigt werden.",
    "La réunion du comité est reportée au jeudi 12 mars à 14 h 30.",
    "图书可以借阅四个星期，逾期每天罚款两角。",
    "本の貸出期間は四週間です。延長は一度だけできます。",
    "يجب إعادة الكتب خلال أربعة أسابيع.",
    "Книги выдаются на четыре недели и могут быть продлены один раз.",
    "ยืมหนังสือได้สี่สัปดาห์",
    "🙂👍🏽 great service, would use again!!! 10/10",
    "3.14159 2.71828 1.41421 0.57721 299792458 6.02214076e23",
    "a",
    "Not every exception is an error. Not every error is an exception.",
    *(" ".join([_SENTENCE] * count) for count in (2, 3, 5, 8, 12, 20)),
    *(f"Section {number}. " + _SENTENCE[: 20 + 9 * number] for number in range(8)),
)

#: What a prepared model must reach beside the original in fp32.
LEAST_MEAN, LEAST_WORST = 0.9999, 0.999


def cosines(ours: Matrix, theirs: Matrix) -> Matrix:
    """Of each pair of unit vectors."""
    return np.asarray((ours * theirs).sum(axis=1), np.float32)


def trusted(found: Matrix) -> bool:
    return bool(np.isfinite(found).all()) and float(found.mean()) >= LEAST_MEAN and float(found.min()) >= LEAST_WORST
