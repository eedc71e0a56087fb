"""What commands share: how they reach the service, and how they print."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Annotated, Any

import typer
from rich.console import Console

from api.cli.telling import harmless
from carrel_client import Carrel
from config.errors import SetupError
from config.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]
TenantOption = Annotated[
    str | None,
    typer.Option("--tenant", "-t", help="Tenant, by name or id. Not needed with CARREL_API_KEY, which has one."),
]


def number(given: float | None) -> float | None:
    """For `callback` of an option that takes fractions: `nan` lies within any bounds, and `inf` within none that are open."""
    if given is not None and not math.isfinite(given):
        raise typer.BadParameter(f"{given} is not a finite number.")
    return given


class _Terminal(Console):
    """Whoever wrote what is printed: it is shown, and does nothing else."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(harmless(one) if isinstance(one, str) else one for one in objects), **options)


out = _Terminal(soft_wrap=True, highlight=False, emoji=False)  # `:key:` is what somebody wrote, and no picture
notes = _Terminal(stderr=True, highlight=False, emoji=False)


def operator(settings: Settings) -> Carrel:
    """The service as its operator, by CARREL_API_KEY or the key file on the service's own machine."""
    if settings.api_key is not None:
        key = settings.api_key.get_secret_value()
    elif settings.operator_key_file.exists():
        key = settings.operator_key_file.read_text().strip()
    else:
        raise SetupError(
            f"There is no operator key in {settings.data_dir.resolve()}: start the service once (`carrel serve`), "
            "set CARREL_DATA_DIR to its folder, or set CARREL_API_KEY."
        )
    return Carrel(api_key=key, base_url=service_url(settings))


def tenant_client(settings: Settings, tenant: str | None, scopes: list[str]) -> Carrel:
    """The service as a tenant: by CARREL_API_KEY, or by exchanging the operator key for a short-lived, audited token."""
    if settings.api_key is not None and tenant is None:
        return Carrel(api_key=settings.api_key.get_secret_value(), base_url=service_url(settings))
    if tenant is None:
        raise SetupError("Which tenant? Pass --tenant NAME, or set CARREL_API_KEY to a key of one.")
    with operator(settings) as admin:
        token = admin.admin.tenants.token(tenant, scopes=scopes, lifetime_seconds=3600)
    return Carrel(api_key=token.token, base_url=service_url(settings))


def service_url(settings: Settings) -> str:
    if settings.url is not None:
        return settings.url
    if settings.service_file.exists():
        return str(json.loads(settings.service_file.read_text())["url"])
    return f"http://{settings.host}:{settings.port}"


#: Control characters that JSON need not escape, and some terminals obey.
_ESCAPED = {code: f"\\u{code:04x}" for code in range(127, 160)}


def print_json(value: Any) -> None:
    print(json.dumps(_plain(value), ensure_ascii=False).translate(_ESCAPED))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return [_plain(item) for item in value] if isinstance(value, list) else value


def table(columns: list[str], rows: list[list[object]]) -> None:
    """Aligned columns, never folded: ids are there to be copied. A cell is one line, without commands to a terminal."""
    lines = [columns, *(["–" if cell is None else " ".join(harmless(str(cell)).split("\n")) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
