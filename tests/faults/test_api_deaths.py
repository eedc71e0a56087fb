"""The API dies inside a request that changes something. Sent again with the same key, it has one effect and its answer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from sqlmodel import col, select

from config.database import Database
from tenants.audit.tables import AuditEntry, AuditIntent
from tests.changes import CHANGES, Change, Options, post
from tests.faults.dying_api import POINTS
from tests.support import environment

TENANTS = ("first", "second")
#: Leave no note: their entries are in the transaction of their effect.
NOTELESS = {f"POST {CHANGES[kind].route}": kind for kind in ("session", "turns")}


@dataclass
class Dying:
    url: str
    folder: Path
    database: Database

    @property
    def operator(self) -> str:
        return (self.folder / "operator.key").read_text().strip()

    def post(self, credential: str, path: str, key: str | None, options: Options) -> httpx2.Response:
        return post(self.url, credential, path, key, options)

    def tenant(self, name: str) -> str:
        """Make it and a key of all scopes, without idempotency keys: these requests live."""
        body = {"tenant": name, "name": "all", "scopes": ["query", "converse", "ingest", "manage"]}
        assert self.post(self.operator, "/v1/admin/tenants", None, {"json": {"name": name}}).status_code == 201
        secret: str = self.post(self.operator, "/v1/admin/keys", None, {"json": body}).json()["secret"]
        return secret

    def change(self, change: Change, secrets: dict[str, str], tenant: str, name: str) -> httpx2.Response:
        """The key is the name's kind: both tenants use the same."""
        change.prepare(self.database, tenant, name)
        path, options = change.send(tenant, name)
        return self.post(self.operator if change.operator else secrets[tenant], path, name.partition("-")[0], options)


@contextmanager
def dying_api(folder: Path, point: str, deaths: int) -> Iterator[Dying]:
    command = [sys.executable, "-m", "tests.faults.dying_api", str(folder), point, str(deaths)]
    with subprocess.Popen(
        command,
        cwd=Path(__file__).parents[2],
        env=environment(folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        assert httpx2.get(f"{url}/healthz", timeout=60).status_code == 200
        database = Database(f"sqlite:///{folder / 'carrel.db'}")
        try:
            yield Dying(url, folder, database)
        finally:
            database.close()
            process.terminate()


@pytest.mark.parametrize("step", [len(POINTS), pytest.param(1, marks=pytest.mark.full)], ids=["everyday", "all"])
@pytest.mark.parametrize("point", POINTS)
def test_a_death_at_any_point_leaves_one_effect_and_the_right_answer(tmp_path: Path, point: str, step: int) -> None:
    """Everyday each change dies at one of the points."""
    committed, first = point == "committed", [*POINTS].index(point) % step
    changes = dict([*CHANGES.items()][first::step])
    with dying_api(tmp_path, point, deaths=len(changes)) as api:
        secrets = {name: api.tenant(name) for name in TENANTS}
        for kind, change in changes.items():
            with pytest.raises(httpx2.TransportError):
                api.change(change, secrets, "first", f"{kind}-1")
            effects = change.effects(api.database, f"{kind}-1")
            assert effects == [int(committed)] * len(effects)
        with api.database.system_read() as session:  # each death is noted, and becomes an audit entry
            noted = sorted(intent.action for intent in session.scalars(select(AuditIntent)))
            told = sorted(session.scalars(select(col(AuditEntry.action)).where(col(AuditEntry.action).in_(NOTELESS))))
        posted = [f"POST {change.route}" for change in changes.values()]
        assert noted == sorted(action for action in posted if action not in NOTELESS)
        # with its effect, or not at all
        assert told == sorted(action for action, kind in NOTELESS.items() if committed and kind in changes)
        for kind, change in changes.items():
            answers = [api.change(change, secrets, "first", f"{kind}-1") for _ in range(2)]
            assert [answer.status_code for answer in answers] == [change.status] * 2, answers[0].text
            assert answers[0].content == answers[1].content
            assert ["idempotent-replayed" in answer.headers for answer in answers] == [committed, True]
            effects = change.effects(api.database, f"{kind}-1")
            assert effects == [1] * len(effects)
            if not change.operator:
                neighbour = api.change(change, secrets, "second", f"{kind}-2")
                assert (neighbour.status_code, "idempotent-replayed" in neighbour.headers) == (change.status, False)
