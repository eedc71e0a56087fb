"""What the supervisor and the engine are told to do. The command line reads the settings for them: the library that does
takes 17 MB, and these two need little of what they say.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from config.settings import Settings

Greeting = Literal["json", "text", "demo"]


@dataclass(frozen=True, slots=True)
class EnginePlan:
    data_dir: Path
    socket: Path
    log_level: str
    rules: dict[str, Any] = field(default_factory=dict)  #: of its upkeep: `rag.store.upkeep.Rules`

    @classmethod
    def of(cls, settings: Settings) -> EnginePlan:
        rules = {
            "graph_points": settings.graph_points,
            "idle_s": settings.engine_idle_seconds,
            "quantization": settings.dedicated_quantization,
            "shared_quantization": settings.shared_quantization,
        }
        return cls(settings.data_dir, settings.engine_socket, settings.log_level, rules)

    @classmethod
    def parse(cls, text: str) -> EnginePlan:
        fields = json.loads(text)
        return cls(Path(fields["data_dir"]), Path(fields["socket"]), fields["log_level"], fields["rules"])

    def text(self) -> str:
        return json.dumps(asdict(self), default=str)


@dataclass(frozen=True, slots=True)
class ServicePlan:
    data_dir: Path
    service_file: Path
    host: str
    port: int
    log_level: str
    greeting: Greeting  #: how it says that the service is ready
    engine: EnginePlan | None  #: None: vectors are kept elsewhere
    workers: int = 1

    @classmethod
    def of(cls, settings: Settings, greeting: Greeting) -> ServicePlan:
        engine = EnginePlan.of(settings) if settings.vector_backend == "engine" else None
        place = settings.data_dir, settings.service_file, settings.host, settings.port
        return cls(*place, settings.log_level, greeting, engine, settings.workers)

    @classmethod
    def parse(cls, text: str) -> ServicePlan:
        fields = json.loads(text)
        engine = None if fields["engine"] is None else EnginePlan.parse(json.dumps(fields["engine"]))
        paths = {name: Path(fields[name]) for name in ("data_dir", "service_file")}
        return cls(**{**fields, **paths, "engine": engine})

    def text(self) -> str:
        return json.dumps(asdict(self), default=str)


def command_of(process: str, *arguments: str) -> list[str]:
    """The command line of one process of the service."""
    # -P: the folder it is started in is not searched for modules, so a foreign config.py there is harmless.
    return [sys.executable, "-P", "-m", "api.processes", process, *arguments]
