"""The master key, and secret files in the data directory: made once, readable by the service's user only."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from config.errors import SetupError
from config.settings import Settings
from config.vault import KEY_BYTES, Vault

ADVICE = f"it must be the base64 of {KEY_BYTES} random bytes, as `openssl rand -base64 {KEY_BYTES}` prints it"


@dataclass(frozen=True, slots=True)
class MasterKey:
    source: str  #: the setting or file that it comes from, for people
    key: bytes | None = field(repr=False)  #: None: the file in the data directory, which the first start makes


def build_vault(settings: Settings) -> Vault:
    """The vault of the master key. Makes the key in the data directory where none is set and none is there.

    Raise SetupError for a malformed key; no message shows any part of one.
    """
    master = find_master_key(settings).key
    if master is None:
        made = secret_file(settings.master_key_file, lambda: base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode())
        master = _decoded(made, str(settings.master_key_file))
    return Vault([master, *_previous(settings)])


def find_master_key(settings: Settings) -> MasterKey:
    """Where the master key comes from. Makes nothing."""
    if settings.secret_key is not None and settings.secret_key_file is not None:
        raise SetupError("CARREL_SECRET_KEY and CARREL_SECRET_KEY_FILE are both set; set one of them.")
    if settings.secret_key is not None:
        return MasterKey("CARREL_SECRET_KEY", _decoded(settings.secret_key.get_secret_value(), "CARREL_SECRET_KEY"))
    if settings.secret_key_file is not None:
        source = f"CARREL_SECRET_KEY_FILE ({settings.secret_key_file})"
        return MasterKey(source, _decoded(_read(settings.secret_key_file, source), source))
    path = settings.master_key_file
    return MasterKey(str(path), _decoded(_read(path, str(path)), str(path)) if path.exists() else None)


def _previous(settings: Settings) -> list[bytes]:
    given = settings.previous_secret_keys.get_secret_value() if settings.previous_secret_keys is not None else ""
    return [_decoded(part, "CARREL_PREVIOUS_SECRET_KEYS") for part in given.split(",") if part.strip()]


def _read(path: Path, source: str) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeError) as error:
        raise SetupError(f"The master key in {source} cannot be read ({type(error).__name__}).") from error


def _decoded(text: str, source: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise SetupError(f"The key in {source} is malformed: {ADVICE}.")
    return key


def secret_file(path: Path, make: Callable[[], str]) -> str:
    """Return the file's text; if there is none, write what `make` returns, mode 0600, whole or not at all."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(make())
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)  # unlike a rename, fails if another process was first
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        _sync_names(path.parent)  # a key that went with the power would leave behind what it sealed in a database elsewhere
    return path.read_text().strip()


def _sync_names(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
