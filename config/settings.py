"""The only reader of the environment. Everything else receives this frozen object.

Its fields stand in groups by concern, one module each: `settings_service`, `_models`, `_store`, `_work`, `_limits`,
`_oidc`.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict

from config.settings_limits import LimitSettings
from config.settings_models import ModelSettings
from config.settings_oidc import OidcSettings
from config.settings_service import ServiceSettings
from config.settings_store import StoreSettings
from config.settings_types import MAX_TOKENS, MIB
from config.settings_work import WorkSettings

__all__ = ["MAX_TOKENS", "MIB", "Settings"]


class Settings(OidcSettings, LimitSettings, WorkSettings, StoreSettings, ModelSettings, ServiceSettings, BaseSettings):
    """Settings of the service, each read from `CARREL_<NAME>`. The groups are listed last first: so they are documented."""

    model_config = SettingsConfigDict(env_prefix="CARREL_", frozen=True, extra="ignore")

    @property
    def sql_url(self) -> str:
        return self.database_url or f"sqlite:///{self.database_file.resolve()}"

    @property
    def database_file(self) -> Path:
        """Of SQLite, where no other database is named."""
        return self.data_dir / "carrel.db"

    @property
    def prepared_models(self) -> Path:
        return self.models_dir or self.data_dir / "models"

    @property
    def service_file(self) -> Path:
        """Where a running service writes its address and process id."""
        return self.data_dir / "service.json"

    @property
    def operator_key_file(self) -> Path:
        return self.data_dir / "operator.key"

    @property
    def master_key_file(self) -> Path:
        return self.data_dir / "secrets" / "master.key"

    @property
    def runtime_dir(self) -> Path:
        """Short, private folder of sockets: a Unix socket's path may have 107 bytes, a data directory's more."""
        name = hashlib.sha256(str(self.data_dir.resolve()).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"carrel-{os.getuid()}" / name

    @property
    def engine_socket(self) -> Path:
        return self.runtime_dir / "engine.sock"
