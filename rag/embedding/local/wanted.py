"""What the settings ask of a local model, and what was chosen for it: values that travel between the rooms beside this one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the settings ask for; "auto" leaves it to the machine."""

    model: str
    runtime: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    dimensions: int | None = None
    query_prompt: str | None = None  #: None: the model's own
    document_prompt: str | None = None
    allow_download: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    runtime: str
    device: str  #: "auto": torch decides, and takes a GPU that it can use
    precision: str  #: "auto": torch decides, for the device that it found
    cpu_bf16: bool  #: of the machine
    reason: str
