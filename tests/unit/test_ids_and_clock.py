"""Ids sort by creation and never repeat; times are UTC and show their milliseconds; secret files are made once."""

from __future__ import annotations

import datetime as dt
import os
import re
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.clock import day, isoformat, month, system_clock
from config.ids import ID_LENGTH, new_id
from config.secrets import secret_file


def test_ids_are_readable_and_never_repeat() -> None:
    ids = [new_id("doc") for _ in range(10_000)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(rf"doc_[0-9a-hjkmnp-tv-z]{{{ID_LENGTH}}}", made) for made in ids)


def test_ids_of_a_later_millisecond_sort_later(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([1_000_000, 2_000_000, 1_773_144_000_000_000_000, 1_773_144_000_001_000_000, 2**47 * 1_000_000])
    monkeypatch.setattr(time, "time_ns", lambda: next(moments))
    ids = [new_id("job") for _ in range(5)]
    assert ids == sorted(ids)


def test_ids_of_one_millisecond_sort_as_they_were_made_whoever_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_773_144_000_000_000_000)
    ids = [new_id("mem") for _ in range(5_000)]
    assert ids == sorted(set(ids))
    with ThreadPoolExecutor(4) as pool:
        each = list(pool.map(lambda _: [new_id("mem") for _ in range(1_000)], range(4)))
    assert all(made == sorted(made) and made[0] > ids[-1] for made in each)
    assert len({one for made in each for one in made}) == 4_000


@pytest.mark.parametrize(
    ("unix_ms", "shown"),
    [
        *((0, "1970-01-01T00:00:00.000Z"), (1_773_144_000_007, "2026-03-10T12:00:00.007Z"), (999, "1970-01-01T00:00:00.999Z")),
        *((253_402_300_799_999, "9999-12-31T23:59:59.999Z"), (253_402_343_999_000, "9999-12-31T23:59:59.999Z")),
        *((-62_135_647_200_000, "0001-01-01T00:00:00.000Z"), (2**63 - 1, "9999-12-31T23:59:59.999Z")),
    ],
)
def test_times_are_shown_in_utc_with_milliseconds(unix_ms: int, shown: str) -> None:
    assert isoformat(unix_ms) == shown


@given(st.integers(0, 4_000_000_000_000))
def test_a_shown_time_means_the_same_moment(unix_ms: int) -> None:
    moment = dt.datetime.fromisoformat(isoformat(unix_ms))
    assert (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) / dt.timedelta(milliseconds=1) == unix_ms
    assert isoformat(unix_ms).startswith(day(unix_ms))
    assert day(unix_ms).startswith(month(unix_ms))


def test_the_systems_clock_counts_milliseconds() -> None:
    assert abs(system_clock() - time.time() * 1000) < 5_000


def test_a_secret_file_and_its_name_are_on_the_disk_before_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced = tmp_path / "kept" / "key", []

    def sync(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").resolve(), path.exists()))

    monkeypatch.setattr(os, "fsync", sync)
    assert secret_file(path, lambda: "x") == "x"
    assert [there for _, there in synced] == [False, True]
    assert synced[1][0] == path.parent


def test_a_secret_file_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "key"
    assert secret_file(path, lambda: "first") == "first"
    assert secret_file(path, lambda: "second") == "first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["key"]
