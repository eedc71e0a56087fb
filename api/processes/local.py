"""A throw-away service in a child process: for the demonstration and for benchmarks, which use what users use."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from carrel_client import Carrel
from config.errors import SetupError

STOP_S = 60.0


@dataclass(frozen=True)
class LocalService:
    url: str
    data_dir: Path
    pid: int

    def admin(self) -> Carrel:
        return Carrel(api_key=(self.data_dir / "operator.key").read_text().strip(), base_url=self.url)

    def tenant(self, name: str, *, monthly_tokens: int | None = None) -> Carrel:
        """Make a tenant and return a client with all of its scopes."""
        with self.admin() as admin:
            admin.admin.tenants.create(name=name, monthly_tokens=monthly_tokens)
            key = admin.admin.keys.create(tenant=name, name="local", scopes=["query", "converse", "ingest", "manage"])
        return Carrel(api_key=key.secret, base_url=self.url)


@contextlib.contextmanager
def local_service(folder: Path, **settings: object) -> Iterator[LocalService]:
    """Run `carrel serve` on a free port with its data in `folder`; stop it at the end, whatever happens."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CARREL_")}
    chosen = {"data_dir": folder, "port": 0, "log_level": "warning", **settings}
    environment = kept | {f"CARREL_{name.upper()}": str(value) for name, value in chosen.items()}
    command = [sys.executable, "-P", "-m", "api.cli.main", "serve", "--json", "--supervised"]
    # The pipe on its standard input is its lifeline: it ends with this process even if that is killed.
    with subprocess.Popen(  # noqa: S603  our own command line
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise SetupError("The service did not start; its messages above say why. `carrel doctor` checks each part.")
            yield LocalService(json.loads(line)["url"], folder, process.pid)
        finally:
            process.terminate()
            process.wait(STOP_S)
