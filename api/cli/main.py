"""Entry point: puts the commands together and renders errors."""

from __future__ import annotations

import sys
from pathlib import Path

import typer
from pydantic import ValidationError

import config

if not hasattr(config, "__path__") or Path(config.__path__[0]).parent != Path(__file__).parents[2]:
    sys.exit(
        f"carrel: another module named config is imported first ({getattr(config, '__file__', '?')}).\n"
        "Take its folder out of PYTHONPATH, or install carrel-server into a virtual environment of its own."
    )

from api.cli import (
    audit,
    collections,
    context,
    demo,
    doctor,
    document,
    documents,
    evaluation,
    feedback,
    ingest,
    jobs,
    keys,
    oversight,
    processes,
    questions,
    secrets,
    session,
    tenants,
    tune,
    usage,
    webhooks,
)
from api.cli.telling import fail
from carrel_client import CarrelClientError
from config.errors import CarrelError, SetupError

app = typer.Typer(
    name="carrel",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Carrel: a private room of knowledge for every tenant. `carrel serve` starts it; settings are CARREL_* variables.",
)
app.add_typer(tenants.tenants, name="tenant")
app.add_typer(tenants.plans, name="plan")
app.add_typer(keys.keys, name="key")
app.add_typer(collections.collections, name="collection")
app.add_typer(document.documents, name="document")
app.add_typer(jobs.jobs, name="job")
app.add_typer(session.sessions, name="session")
app.add_typer(questions.questions, name="questions")
app.add_typer(feedback.feedback, name="feedback")
app.add_typer(webhooks.webhooks, name="webhook")
app.add_typer(secrets.secrets, name="secrets")
app.add_typer(audit.audit, name="audit")
app.add_typer(oversight.admin, name="admin")
for module in (processes, doctor, ingest, documents, context, evaluation, tune, jobs, usage, demo):
    module.register(app)


def run() -> None:
    as_json = "--json" in sys.argv
    try:
        app(prog_name="carrel")
    except ValidationError as error:  # of the settings: nothing else is validated here
        wrong = [f"CARREL_{str(item['loc'][0]).upper()}: {item['msg']}" for item in error.errors()]
        fail(SetupError("; ".join(wrong)), as_json=as_json)
    except (CarrelError, CarrelClientError, OSError, UnicodeError) as error:
        fail(error, as_json=as_json)


if __name__ == "__main__":
    run()
