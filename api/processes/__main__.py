"""`python -m api.processes NAME`: one process of the service, without the command line's libraries in its memory."""

from __future__ import annotations

import argparse
import socket
import sys

from api.cli.telling import fail
from api.processes.lifecycle import Lifecycle, end_with_parent, load_without_collecting
from api.processes.plans import EnginePlan, ServicePlan
from config.errors import CarrelError
from config.logs import configure_logging


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m api.processes")
    parser.add_argument("process", choices=("serve", "engine", "worker", "api"))
    parser.add_argument("--supervised", action="store_true", help="end when standard input closes")
    parser.add_argument("--plan", help="of `serve` and `engine`: what to do, as JSON")
    parser.add_argument("--fd", type=int, help="of `api`: an inherited listening socket")
    given = parser.parse_args()
    if given.supervised:
        end_with_parent()
    if given.process == "serve":
        _serve(ServicePlan.parse(given.plan))
    try:
        if given.process == "engine":
            _engine(EnginePlan.parse(given.plan))
        else:
            _by_settings(given.process, None if given.fd is None else socket.socket(fileno=given.fd))
    except (CarrelError, OSError, UnicodeError) as error:
        fail(error, as_json=False)


def _serve(plan: ServicePlan) -> None:
    from api.processes.supervisor import Supervisor

    configure_logging("supervisor", plan.log_level)
    try:
        sys.exit(Supervisor(plan).run())
    except (CarrelError, OSError, UnicodeError) as error:
        fail(error, as_json=plan.greeting == "json")


def _engine(plan: EnginePlan) -> None:
    configure_logging("engine", plan.log_level)
    life = Lifecycle()
    from api.processes.engine import run_engine

    run_engine(plan, life)


def _by_settings(process: str, listener: socket.socket | None) -> None:
    load_without_collecting()
    from config.settings import Settings

    settings = Settings()
    configure_logging(process, settings.log_level)
    life = Lifecycle()
    if process == "worker":
        from api.processes.worker import run_worker

        run_worker(settings, life)
    else:
        from api.processes.api import run_api

        run_api(settings, listener, life)


if __name__ == "__main__":
    main()
