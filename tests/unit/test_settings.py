"""Settings come from the environment, are refused when they make no sense, and never change afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from api.processes.locks import private_dir
from config.errors import SetupError
from config.money import MAX_PRICE
from config.settings import MAX_TOKENS, Settings


def test_every_setting_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CARREL_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("CARREL_PORT", "0")
    monkeypatch.setenv("CARREL_MONTHLY_TOKENS", "5000")
    monkeypatch.setenv("CARREL_API_KEY", "carrel_key_x_secret")
    monkeypatch.setenv("CARREL_UNKNOWN", "ignored")
    settings = Settings()
    assert (settings.data_dir, settings.port, settings.monthly_tokens) == (tmp_path, 0, 5000)
    assert settings.api_key == SecretStr("carrel_key_x_secret")


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARREL_API_KEY", "hidden-key")
    monkeypatch.setenv("CARREL_QDRANT_API_KEY", "hidden-key")
    assert "hidden-key" not in repr(Settings()) + Settings().model_dump_json()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("PORT", "http"),
        ("MONTHLY_TOKENS", "-1"),
        ("WORKER_CONCURRENCY", "0"),
        ("EMBEDDING_RUNTIME", "magic"),
        ("SWEEP_SECONDS", "0"),
        ("LOG_LEVEL", "LOUD"),
        ("EMBEDDING_PRICE", "-1"),
        ("EMBEDDING_PRICE", "0.5"),
        ("EMBEDDING_PRICE", str(MAX_PRICE + 1)),
        ("EMBEDDING_PRICES", "{broken"),
        ("EMBEDDING_PRICES", '["a"]'),
        ("EMBEDDING_PRICES", '{"a": -1}'),
    ],
)
def test_senseless_values_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"CARREL_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


def test_a_space_is_priced_before_its_model_and_the_rest_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().price_of("sp_1", "small") == 0
    monkeypatch.setenv("CARREL_EMBEDDING_PRICE", "5")
    monkeypatch.setenv("CARREL_EMBEDDING_PRICES", '{"small": 20000, "sp_2": 0}')
    settings = Settings()
    assert [settings.price_of(*of) for of in (("sp_1", "small"), ("sp_2", "small"), ("sp_1", "large"))] == [20_000, 0, 5]


def test_equal_settings_are_one_key() -> None:
    one, same, other = (Settings(embedding_prices=prices) for prices in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1}))
    assert {one: "found"}[same] == "found"
    assert other not in {one}


def test_the_largest_budget_at_the_highest_price_fits_a_column() -> None:
    assert MAX_TOKENS * MAX_PRICE < 2**63


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_every_setting_says_what_it_is_for() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_the_database_lies_in_the_data_directory_unless_named(tmp_path: Path) -> None:
    assert Settings(data_dir=tmp_path).sql_url == f"sqlite:///{tmp_path.resolve()}/carrel.db"
    assert Settings(data_dir=tmp_path, database_url="postgresql://x").sql_url == "postgresql://x"


def test_sockets_have_short_paths_that_differ_by_data_directory(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["folder"] * 30)
    sockets = {Settings(data_dir=folder).engine_socket for folder in (tmp_path, deep)}
    assert len(sockets) == 2
    assert all(len(str(path)) < 108 for path in sockets)
    assert Settings(data_dir=tmp_path / "x" / "..").engine_socket == Settings(data_dir=tmp_path).engine_socket


def test_a_private_folder_is_made_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "parent" / "run"
    assert private_dir(path) == private_dir(path) == path
    assert path.stat().st_mode & 0o777 == path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o777])
@pytest.mark.parametrize("folder", ["parent", "parent/run"])
def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path, mode: int, folder: str) -> None:
    path = private_dir(tmp_path / "parent" / "run")
    (tmp_path / folder).chmod(mode)
    with pytest.raises(SetupError, match="0700"):
        private_dir(path)
    (tmp_path / folder).chmod(0o700)
