"""What `carrel serve` says to people once it is ready. Run by the supervisor: `python -m api.cli.greeting text|demo URL`."""

from __future__ import annotations

import contextlib
import sys

from api.cli.common import out
from carrel_client import Carrel, ConflictError
from config.secrets import secret_file
from config.settings import Settings

DEMO_TENANT = "demo"


def greet(settings: Settings, url: str, *, with_tenant: bool) -> None:
    """What `serve` prints once it is ready."""
    out.print(f"\n[bold]Carrel is ready at {url}[/bold]  (API reference: {url}/docs)")
    out.print(f"The operator's key is in {settings.operator_key_file}; `carrel tenant create NAME` makes a tenant.")
    if not with_tenant:
        return
    key = _demo_key(settings, url)
    out.print(f"\nTenant `{DEMO_TENANT}` is yours to try. Its key: {key}\n")
    print(
        f"curl -s {url}/v1/documents -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\\n"
        '  -d \'{"text": "Books may be kept for four weeks.", "title": "Loans"}\'\n\n'
        f"curl -s {url}/v1/query -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\\n"
        '  -d \'{"query": "how long may I keep a book?"}\'\n\nCtrl-C stops the service.',
        flush=True,
    )


def _demo_key(settings: Settings, url: str) -> str:
    def make() -> str:
        with Carrel(api_key=settings.operator_key_file.read_text().strip(), base_url=url) as admin:
            with contextlib.suppress(ConflictError):
                admin.admin.tenants.create(name=DEMO_TENANT)
            return admin.admin.keys.create(
                tenant=DEMO_TENANT, name="demo", scopes=["query", "converse", "ingest", "manage"]
            ).secret

    return secret_file(settings.data_dir / "demo.key", make)


if __name__ == "__main__":
    greet(Settings(), sys.argv[2], with_tenant=sys.argv[1] == "demo")
