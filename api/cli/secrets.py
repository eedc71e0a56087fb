"""`carrel secrets …`: what a change of the master key needs. Works on the database itself, with the service's settings."""

from __future__ import annotations

import dataclasses
import sys

import typer

from api.cli.common import AsJson, out, print_json
from config.errors import SetupError
from config.settings import Settings

secrets = typer.Typer(no_args_is_help=True, help="Look after the stored secrets of tenants, on the service's own machine.")


@secrets.callback()
def group() -> None:
    """Keeps `rewrap` a command of its own while it is the only one."""


@secrets.command()
def rewrap(as_json: AsJson = False) -> None:
    """Put every stored secret under the present master key; the last step before a former key is thrown away.

    Set CARREL_SECRET_KEY to the new key and CARREL_PREVIOUS_SECRET_KEYS to the former one, restart the service, then run
    this with the same settings. It may run while the service does. Exits 1 if secrets remain that no given key opens.
    """
    from api.wiring.core import build_core
    from tenants.secrets import Secrets

    settings = Settings()
    if settings.database_url is None and not settings.database_file.exists():
        raise SetupError(f"There is no database in {settings.data_dir.resolve()}: set CARREL_DATA_DIR to the service's folder.")
    core = build_core(settings)
    result = Secrets(core.database, core.clock, core.vault).rewrap_all()
    core.database.close()
    if as_json:
        print_json({"key": core.vault.key_id, **dataclasses.asdict(result)})
    else:
        out.print(f"{result.rewrapped} re-wrapped, {result.current} were under key {core.vault.key_id} already.")
        if result.unopened:
            out.print(f"{result.unopened} were sealed under another key: add it to CARREL_PREVIOUS_SECRET_KEYS.")
    sys.exit(1 if result.unopened else 0)
