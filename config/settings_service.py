"""Settings of where the service lives, listens and keeps its secrets, and of the command line that finds it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, SecretStr

from config.settings_types import Names, Networks


class ServiceSettings(BaseModel):
    data_dir: Path = Field(Path("data"), description="Where the database, vectors, blobs, caches and keys live.")
    database_url: str | None = Field(None, description="SQLAlchemy URL; the default is SQLite inside the data directory.")
    sqlite_synchronous: Literal["normal", "full"] = Field(
        "normal",
        description="`normal` survives the death of a process, `full` also a power loss, at one fsync a commit.",
    )
    host: str = Field("127.0.0.1", description="Address the API listens on. TLS ends in front of it.")
    port: int = Field(8321, ge=0, le=65535, description="Port the API listens on; 0 picks a free one.")
    url: str | None = Field(
        None, description="Where the CLI finds the service; the default is the one running on this data directory."
    )
    api_key: SecretStr | None = Field(
        None, description="Key the CLI uses; without one it uses the operator key on this machine."
    )
    cli_dir: Path = Field(
        Path("~/.cache/carrel"),
        description="Where `carrel ingest` notes which files are brought, so that it need not read them.",
    )
    secret_key: SecretStr | None = Field(
        None, description="Master key, the base64 of 32 bytes; without one, it is made in the data directory."
    )
    secret_key_file: Path | None = Field(None, description="File that holds the master key, instead of CARREL_SECRET_KEY.")
    previous_secret_keys: SecretStr | None = Field(
        None, description="Former master keys, separated by commas: they open what they sealed and seal nothing new."
    )
    trusted_proxies: Networks = Field(
        (),
        description="Addresses and networks of proxies, separated by commas, whose `X-Forwarded-For` says where a request "
        "came from. Without any, it is the peer's address.",
    )
    mcp_origins: Names = Field(
        (),
        description="Origins of web pages, separated by commas, that may ask at /mcp/ beside those of this machine, such as "
        "`https://agents.example.com`. Programs send no origin.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
