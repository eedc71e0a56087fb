"""Where the master key comes from, and that no message about one shows it."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from config.errors import SetupError
from config.secrets import build_vault, find_master_key
from config.settings import Settings
from config.vault import CannotOpen

KEYS = [base64.b64encode(bytes([number]) * 32).decode() for number in range(3)]
MALFORMED = ["", "short", KEYS[0][:-4], KEYS[0] + "AAAA", "!" * 44, KEYS[0].rstrip("="), "é" * 44, "-_" * 22]


def settings(tmp_path: Path, **given: str | Path) -> Settings:
    return Settings(data_dir=tmp_path, **given)  # type: ignore[arg-type]


def test_without_a_setting_the_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    chosen = settings(tmp_path / "data")
    assert find_master_key(chosen).key is None
    assert not (tmp_path / "data").exists()
    sealed = build_vault(chosen).seal(b"x", bound_to="y")
    path = tmp_path / "data" / "secrets" / "master.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert build_vault(chosen).open(sealed, bound_to="y") == b"x"
    found = find_master_key(chosen)
    assert (found.source, found.key) == (str(path), base64.b64decode(path.read_text()))
    assert build_vault(settings(tmp_path / "other")).key_id != build_vault(chosen).key_id


def test_a_key_from_the_environment_or_a_file_leaves_no_file_behind(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEYS[0] + "\n")
    of_file = build_vault(settings(tmp_path / "d", secret_key_file=file))
    of_variable = build_vault(settings(tmp_path / "d", secret_key=KEYS[0]))
    assert of_file.key_id == of_variable.key_id
    assert find_master_key(settings(tmp_path, secret_key=KEYS[0])).source == "CARREL_SECRET_KEY"
    assert find_master_key(settings(tmp_path, secret_key_file=file)).source == f"CARREL_SECRET_KEY_FILE ({file})"
    assert not (tmp_path / "d").exists()


def test_former_keys_still_open(tmp_path: Path) -> None:
    old = build_vault(settings(tmp_path, secret_key=KEYS[0])).seal(b"x", bound_to="y")
    new = build_vault(settings(tmp_path, secret_key=KEYS[1], previous_secret_keys=f"{KEYS[2]}, {KEYS[0]},"))
    assert new.open(old, bound_to="y") == b"x"
    assert not new.is_current(old)
    with pytest.raises(CannotOpen):
        build_vault(settings(tmp_path, secret_key=KEYS[1], previous_secret_keys="")).open(old, bound_to="y")


@pytest.mark.parametrize("text", MALFORMED)
@pytest.mark.parametrize("place", ["CARREL_SECRET_KEY", "CARREL_PREVIOUS_SECRET_KEYS", "CARREL_SECRET_KEY_FILE", "master.key"])
def test_a_malformed_key_is_refused_by_place_and_not_shown(tmp_path: Path, text: str, place: str) -> None:
    (tmp_path / "secrets").mkdir()
    file = tmp_path / "secrets" / "master.key"
    file.write_text(text)
    chosen = {
        "CARREL_SECRET_KEY": settings(tmp_path, secret_key=text),
        "CARREL_PREVIOUS_SECRET_KEYS": settings(tmp_path, secret_key=KEYS[0], previous_secret_keys=text or ", x"),
        "CARREL_SECRET_KEY_FILE": settings(tmp_path, secret_key_file=file),
        "master.key": settings(tmp_path),
    }[place]
    with pytest.raises(SetupError) as refused:
        build_vault(chosen)
    assert place in refused.value.detail
    assert not text or text not in refused.value.detail


@given(st.text())
def test_no_text_but_32_bytes_in_base64_is_a_key(text: str) -> None:
    with pytest.raises(SetupError) as refused:
        build_vault(Settings(secret_key=SecretStr(text)))
    with pytest.raises(SetupError) as other:
        build_vault(Settings(secret_key=SecretStr("another")))
    assert refused.value.detail == other.value.detail  # so nothing of the key is in it


@pytest.mark.parametrize("missing", ["nothing", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, missing: str) -> None:
    with pytest.raises(SetupError, match=r"SECRET_KEY_FILE .* cannot be read"):
        build_vault(settings(tmp_path, secret_key_file=tmp_path / missing))


def test_two_sources_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="set one of them"):
        build_vault(settings(tmp_path, secret_key=KEYS[0], secret_key_file=tmp_path / "key"))


def test_a_key_is_not_shown_by_what_holds_it(tmp_path: Path) -> None:
    chosen = settings(tmp_path, secret_key=KEYS[0], previous_secret_keys=KEYS[1])
    shown = repr(chosen) + chosen.model_dump_json() + repr(find_master_key(chosen)) + repr(build_vault(chosen))
    assert not any(key in shown for key in KEYS)
