"""Tells what of the HTTP interface changed, and writes it down. `python -m api.contract`, or `make contract`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

from api.app import create_app
from api.contract.changes import Change, changes
from api.contract.snapshot import Lines, lines_of, read, written
from api.wiring.api import ApiServices

FILE = Path(__file__).parents[2] / "docs" / "contract.txt"


def current() -> Lines:
    return lines_of(create_app(cast(ApiServices, None)).openapi())  # routes are declared without their services


def since_accepted() -> list[Change]:
    return changes(read(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}, current())


def main() -> None:
    sys.stdout.writelines(f"{change}\n" for change in since_accepted())
    FILE.write_text(written(current()), encoding="utf-8")


if __name__ == "__main__":
    main()
