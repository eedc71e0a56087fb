"""Sending to a receiver that lies, swells or stalls: only the head of its answer matters."""

from __future__ import annotations

import socket
import time

import pytest

from config.errors import FetchFailed, SiteUnavailable
from ingestion.fetch.addresses import UrlPolicy
from ingestion.fetch.poster import Answer, Poster
from tests.sites import Answer as Answering
from tests.sites import page, says, site
from tests.support import PATIENCE


def poster(seconds: float = 10) -> Poster:
    return Poster(UrlPolicy.of(range(1, 65536), ["127.0.0.1"]), seconds=seconds)


def endless(head: bytes, part: bytes, pause_s: float = 0.0) -> Answering:
    def answer(_line: str, connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(part)
            time.sleep(pause_s)

    return answer


def test_a_message_goes_out_whole_and_its_answers_head_comes_back() -> None:
    with site(says(page(b"x" * 100_000, "text/plain", "Retry-After: 7", status="503 Busy"))) as running:
        assert poster().post(running.url("/a?b=ä"), b'{"a":1}', {"webhook-id": "evt_1"}) == Answer(503, 7.0)
    [line], [headers] = running.requests, running.headers
    assert line == "POST /a?b=%C3%A4 HTTP/1.1"
    assert (headers["content-length"], headers["content-type"], headers["webhook-id"]) == ("7", "application/json", "evt_1")
    assert not {"cookie", "authorization", "referer", "transfer-encoding"} & headers.keys()


@pytest.mark.parametrize("pause_s", [0.0, 0.02], ids=["fast", "slow"])
def test_bodies_without_end_are_not_read(pause_s: float) -> None:
    began = time.monotonic()
    with site(endless(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n", b"x" * 1000, pause_s)) as running:
        assert poster().post(running.url(), b"{}", {}).status == 200
    assert time.monotonic() - began < 5 * PATIENCE


def test_heads_without_end_are_a_failure() -> None:
    with site(endless(b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n")) as running, pytest.raises(FetchFailed):
        poster().post(running.url(), b"{}", {})
    with site(endless(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x", 0.02)) as running, pytest.raises(FetchFailed, match="too long"):
        poster(0.4).post(running.url(), b"{}", {})


def test_nobody_there_and_nonsense_are_failures() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(SiteUnavailable):
        poster().post(f"http://127.0.0.1:{port}/", b"{}", {})
    with site(says(b"SSH-2.0-OpenSSH_9.6\r\n")) as running, pytest.raises(FetchFailed):
        poster().post(running.url(), b"{}", {})
