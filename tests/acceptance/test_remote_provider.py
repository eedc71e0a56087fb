"""A whole service whose model is a provider's: it starts without it, waits for it, and answers what it knows without it."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest

from carrel_client import Carrel, ServiceUnavailableError
from tests.provider import WIDTH, provider_server
from tests.support import carrel_process, environment, free_port, start_service

pytestmark = pytest.mark.xdist_group("processes")

KEY = "canary-of-the-providers-key"


def remote_environment(folder: Path, port: int) -> dict[str, str]:
    return environment(
        folder,
        embedding_runtime="remote",
        embedding_url=f"http://127.0.0.1:{port}/v1",
        embedding_model="test-model",
        embedding_api_key=KEY,
        embedding_dimensions=WIDTH,
        embedding_deadline_seconds=0.5,
        log_level="debug",
    )


def test_a_provider_may_be_down_at_any_time(tmp_path: Path) -> None:
    port = free_port()
    env = remote_environment(tmp_path / "data", port)
    with (tmp_path / "log").open("w") as log:
        service = start_service(tmp_path / "data", env, stderr=log)
        try:
            _, one = service.tenant()
            name, _ = service.tenant()
            with Carrel(api_key=service.key(name), base_url=service.url, max_retries=0) as two:
                assert httpx2.get(f"{service.url}/healthz").status_code == 200
                with pytest.raises(ServiceUnavailableError) as down:
                    two.query("what one wrote")
                assert down.value.retryable
                assert two.usage().used == 0
                job = one.documents.create(text="what one wrote")
                with provider_server(port=port) as provider:
                    assert job.wait(timeout_s=60).state == "succeeded"
                    found = one.query("what one wrote")
                    assert [passage.text for passage in found.passages] == ["what one wrote"]
                    assert two.query("what one wrote").passages == []
                    assert provider.received[0].headers["authorization"] == f"Bearer {KEY}"
                used = one.usage().used
                assert one.query("what one wrote").passages == found.passages
                assert one.usage().used == used
                with pytest.raises(ServiceUnavailableError):
                    two.query("something else")
        finally:
            assert service.stop() == 0
    assert KEY not in (tmp_path / "log").read_text()
    assert "what one wrote" not in (tmp_path / "log").read_text()


def test_doctor_names_what_is_missing(tmp_path: Path) -> None:
    env = remote_environment(tmp_path, 1) | {
        "CARREL_EMBEDDING_URL": f"https://user:{KEY}@host/v1",
        "CARREL_LOG_LEVEL": "warning",
    }
    run = carrel_process("doctor", "--json", env=env)
    (model,) = (finding for finding in json.loads(run.stdout)["findings"] if finding["part"] == "model")
    assert (run.returncode, model["ok"]) == (1, False)
    assert "CARREL_EMBEDDING_API_KEY" in model["detail"]
    assert KEY not in run.stdout + run.stderr
