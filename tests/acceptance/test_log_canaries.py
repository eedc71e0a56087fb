"""What tenants write, ask and sign with is in no log line of any process, at the most talkative level."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest

from carrel_client import APIError, Carrel
from tests.support import environment, start_service

pytestmark = pytest.mark.xdist_group("processes")


def test_no_content_and_no_key_is_logged(tmp_path: Path) -> None:
    env = environment(tmp_path / "data", embedding_runtime="hash", log_level="debug")
    canaries = [
        f"canary{number}{word}" for number, word in enumerate(("title", "text", "label", "query", "wrong", "body", "cursor"))
    ]
    title, text, label, query, wrong, body, cursor = canaries
    keys = [(wrong_key := f"carrel_key_{'0' * 26}_{wrong}{'x' * 30}")]
    with (tmp_path / "log").open("w") as log:
        service = start_service(tmp_path / "data", env, stderr=log)
        try:
            for name, other in (service.tenant(), service.tenant()):
                keys.append(service.key(name, "query"))
                other.documents.create(text=f"the {text} sings", title=title, labels=[label], external_id=text).wait()
                other.documents.create(content=b"<p>" + body.encode() + b"</p>", file_name="x.html", title=title).wait()
                assert other.query(f"{text} {query}?").passages
                with Carrel(api_key=keys[-1], base_url=service.url) as reader:
                    reader.query(query)
            for credential in (wrong_key, wrong, f"eyJhbGciOiJIUzI1NiJ9.{wrong}.{wrong}"):
                with Carrel(api_key=credential, base_url=service.url) as stranger, pytest.raises(APIError):
                    stranger.query(query)
            asked = {"headers": {"authorization": f"Bearer {keys[-1]}"}, "params": {"after": cursor}}
            assert httpx2.get(f"{service.url}/v1/documents", **asked).status_code == 422
            refused = httpx2.post(f"{service.url}/v1/query", headers=asked["headers"], json={"query": [query], body: body})
            assert refused.status_code == 422
            service.kill("worker")
        finally:
            service.stop()
    keys.append((tmp_path / "data" / "operator.key").read_text().strip())
    master = (tmp_path / "data" / "secrets" / "master.key").read_text().strip()
    logged = (tmp_path / "log").read_text()
    events = [json.loads(line) for line in logged.splitlines()]
    assert {event["process"] for event in events} == {"supervisor", "api", "worker", "engine"}
    assert "debug" in {event["level"] for event in events}
    assert not [canary for canary in canaries if canary in logged]
    assert not [part for part in [master, *(key.split("_", 3)[3] for key in keys)] if part in logged]
