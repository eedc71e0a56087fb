"""One vector and no more, as the product makes it: `python -m benchmarks.first_vector` says `done` when it has it."""

from __future__ import annotations

import os

from api.wiring.embedders import build_embedder
from config.settings import Settings

TEXT = "Books may be kept for four weeks."


def main() -> None:
    embedder = build_embedder(Settings())
    embedder.embed([TEXT], embedder.model.count_tokens([TEXT]), urgent=True)
    print("done", flush=True)
    os._exit(0)  # what ends afterwards is not measured


if __name__ == "__main__":
    main()
