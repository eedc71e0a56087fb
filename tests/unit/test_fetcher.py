"""Fetching: who is connected to, and what becomes of answers that lie, stall or swell."""

from __future__ import annotations

import datetime
import gzip
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from config.errors import CarrelError, FetchFailed, SiteUnavailable, TooLarge, UnsupportedMedia, UrlRefused
from ingestion.fetch.addresses import UrlPolicy
from ingestion.fetch.fetcher import MAX_REDIRECTS, Fetcher, Resolve, resolve
from tests.hostile_urls import HOSTILE
from tests.sites import Answer, Site, page, redirect, says, site
from tests.support import PATIENCE

MAX_BYTES = 3_000_000
PUBLIC = "93.184.215.14"
EVERY_PORT = range(1, 65536)


def looked_up(*answers: list[str]) -> Resolve:
    """A resolver that gives one answer after another, the last again and again."""
    left = list(answers)
    return lambda _host, _port: left.pop(0) if len(left) > 1 else left[0]


def open_fetcher(*allowed: str, resolve: Resolve = resolve, seconds: float = 10, tls: ssl.SSLContext | None = None) -> Fetcher:
    """Of an operator who allows all ports."""
    return Fetcher(UrlPolicy.of(EVERY_PORT, allowed), max_bytes=MAX_BYTES, seconds=seconds, resolve=resolve, tls=tls)


@pytest.fixture
def listener() -> Iterator[Site]:
    """A site that nobody must come to."""
    with site(says(page(b"secret"))) as running:
        yield running
        assert running.connections == 0


def refusal(fetcher: Fetcher, url: str) -> UrlRefused:
    with pytest.raises(UrlRefused) as refused:
        fetcher.fetch(url)
    return refused.value


def failure(answer: Answer | bytes, *, seconds: float = 10) -> CarrelError:
    """How fetching from a site of this answer ends."""
    with site(says(answer) if isinstance(answer, bytes) else answer) as running, pytest.raises(CarrelError) as failed:
        open_fetcher("127.0.0.1", seconds=seconds).fetch(running.url())
    return failed.value


def test_no_hostile_spelling_reaches_a_listener(listener: Site) -> None:
    for url in HOSTILE:
        refusal(open_fetcher(), url.replace("{port}", str(listener.port)))


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["0.0.0.0"],
        ["169.254.169.254"],
        ["fe80::1%lo"],
        [PUBLIC, "127.0.0.1"],
        ["127.0.0.1", PUBLIC],
        [],
    ],
    ids=str,
)
def test_names_that_lead_inside_are_refused(listener: Site, addresses: list[str]) -> None:
    refused = refusal(open_fetcher(resolve=looked_up(addresses)), listener.url(host="example.org"))
    assert refused.detail == "The URL does not lead to a public address.", "the same for names that do not exist"


def test_the_systems_own_names_are_refused(listener: Site) -> None:
    refusal(open_fetcher(), listener.url(host="localhost"))


def test_a_name_that_changes_its_mind_is_looked_up_once(listener: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rebinding: what was checked is connected to, by number, and the second answer is never asked for."""
    asked, tried = [], []

    def rebinding(host: str, _port: int) -> list[str]:
        asked.append(host)
        return [PUBLIC] if len(asked) == 1 else ["127.0.0.1"]

    def connect(address: tuple[str, int], *_rest: object, **_more: object) -> socket.socket:
        tried.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(SiteUnavailable):
        open_fetcher(resolve=rebinding).fetch(listener.url(host="example.org"))
    assert (asked, tried) == (["example.org"], [(PUBLIC, listener.port)])
    refusal(open_fetcher(resolve=rebinding), listener.url(host="example.org"))
    assert len(tried) == 1, "when it is tried again, it is looked up and checked again"


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://127.0.0.1:{port}/", "public address"),
        ("//127.0.0.1:{port}/", "public address"),
        ("http://localhost:{port}/", "public address"),
        ("http://2130706433:{port}/", "number for a host"),
        ("http://[::ffff:127.0.0.1]:{port}/", "public address"),
        ("http://user@site.test:{port}/", "user names"),
        ("file:///etc/passwd", "http:// or https://"),
        ("gopher://127.0.0.1:{port}/", "http:// or https://"),
        ("http://site.test:0/", "names port 0"),
        ("http://[::1/", "cannot be parsed"),
        ("http://site.test:{port}/" + "a" * 2000, "at most 2000 characters"),
    ],
)
def test_redirects_are_checked_like_urls(listener: Site, location: str, reason: str) -> None:
    def resolver(host: str, port: int) -> list[str]:
        return ["127.0.0.1"] if host == "site.test" else resolve(host, port)

    with site(says(redirect(location.replace("{port}", str(listener.port))))) as running:
        refused = refusal(open_fetcher("site.test", resolve=resolver), running.url(host="site.test"))
        assert running.connections == 1
    assert reason in refused.detail


def test_ports_hold_for_redirects_too(listener: Site) -> None:
    with site(says(redirect(listener.url()))) as running:
        fetcher = Fetcher(UrlPolicy.of([running.port], ["127.0.0.1"]), max_bytes=MAX_BYTES, seconds=10)
        assert f"names port {listener.port}" in refusal(fetcher, running.url()).detail


def test_a_redirect_is_looked_up_anew(listener: Site) -> None:
    """The second hop goes to the same name, which leads somewhere else by now."""
    with site(says(redirect("/elsewhere"))) as running:
        policy = UrlPolicy.of(EVERY_PORT, ["127.0.0.1"])
        fetcher = Fetcher(policy, max_bytes=9, seconds=9, resolve=looked_up(["127.0.0.1"], ["127.0.0.2"]))
        refusal(fetcher, running.url(host="site.test"))
        assert running.connections == 1


def test_redirects_are_followed_and_counted() -> None:
    hops = [redirect(f"hop{number}?x=ä", status) for number, status in enumerate(["301 X", "302 X", "303 X", "307 X", "308 X"])]
    with site(says(*hops, page(b"arrived"))) as running:
        fetched = open_fetcher("127.0.0.1").fetch(running.url("/a/b"))
        assert (fetched.content, fetched.url) == (b"arrived", running.url("/a/hop4?x=%C3%A4"))
        assert running.connections == MAX_REDIRECTS + 1
    with site(says(redirect("/again"))) as running:
        with pytest.raises(FetchFailed, match="more than 5 times"):
            open_fetcher("127.0.0.1").fetch(running.url())
        assert running.connections == MAX_REDIRECTS + 1


def test_a_plain_answer_arrives() -> None:
    with site(says(page(b"Some words."))) as running:
        fetched = open_fetcher("127.0.0.1").fetch(running.url("/notes.md?v=1"))
    assert (fetched.content, fetched.media_type) == (b"Some words.", "text/markdown")
    assert running.requests == ["GET /notes.md?v=1 HTTP/1.1"]
    [headers] = running.headers
    assert headers["host"] == f"127.0.0.1:{running.port}"
    assert not {"cookie", "authorization", "referer"} & headers.keys()


def test_neither_proxies_nor_cookies_are_used(listener: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{listener.port}")
    with site(says(page(b"", "text/plain", "Location: /two", "Set-Cookie: a=b", status="302 X"), page(b"done"))) as running:
        assert open_fetcher("127.0.0.1").fetch(running.url()).content == b"done"
    assert not any("cookie" in headers for headers in running.headers)


@pytest.mark.parametrize(
    ("kind", "path", "body", "read_as"),
    [
        ("text/html; charset=utf-8", "/x", b"<p>hello</p>", "text/html"),
        ("application/xhtml+xml", "/x", b"<?xml version='1.0'?><html/>", "text/html"),
        ("text/plain", "/x.html", b"hello", "text/plain"),
        ("text/markdown", "/x", b"# hello", "text/markdown"),
        ("TEXT/PLAIN", "/README.MD", b"# hello", "text/markdown"),
        ("application/octet-stream", "/a%20b.md", b"# hello", "text/markdown"),
        ("application/pdf", "/x", b"%PDF-1.7\n", "application/pdf"),
        ("text/plain", "/x", b"%PDF-1.7\n", "application/pdf"),
    ],
)
def test_kinds_are_told_by_bytes_type_and_name(kind: str, path: str, body: bytes, read_as: str) -> None:
    with site(says(page(body, kind))) as running:
        assert open_fetcher("127.0.0.1").fetch(running.url(path)).media_type == read_as


def test_other_kinds_are_refused() -> None:
    assert isinstance(failure(page(b"\x89PNG", "image/png")), UnsupportedMedia)
    assert isinstance(failure(page(b"\0\1\2", "text/html")), UnsupportedMedia)
    assert isinstance(failure(page(b"no pdf", "application/pdf")), UnsupportedMedia)


def test_statuses_say_what_happened() -> None:
    for status in ("204 No Content", "206 Partial Content", "304 Not Modified", "404 Not Found", "500 Oops", "302 Found"):
        failed = failure(page(b"", status=status))
        assert isinstance(failed, FetchFailed)
        assert failed.detail == f"The site answered {status[:3]}."


@pytest.mark.parametrize(
    ("given", "wait"), [("7", 7.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", None), ("9" * 99, None)]
)
def test_busy_sites_may_say_when(given: str, wait: float | None) -> None:
    for status in ("429 Too Many Requests", "503 Service Unavailable"):
        failed = failure(page(b"", "text/plain", f"Retry-After: {given}", status=status))
        assert isinstance(failed, SiteUnavailable)
        assert failed.retry_after_s == wait


def test_nobody_listening_is_worth_another_try() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(SiteUnavailable):
        open_fetcher("127.0.0.1").fetch(f"http://127.0.0.1:{port}/")


def drip(head: bytes, part: bytes) -> Answer:
    """Something now and then, for ever: no single wait is long."""

    def answer(_line: str, connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(part)
            time.sleep(0.02)

    return answer


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 900000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["body", "chunks", "header", "interim"],
)
def test_slow_answers_end_with_the_time_of_the_whole(head: bytes, part: bytes) -> None:
    began = time.monotonic()
    failed = failure(drip(head, part), seconds=0.5)
    assert isinstance(failed, FetchFailed)
    assert "too long" in failed.detail
    assert 0.4 < time.monotonic() - began < 5 * PATIENCE


def test_silence_ends_too() -> None:
    assert "too long" in failure(lambda _line, connection: (connection.recv(1), None)[1], seconds=0.3).detail


def endless(head: bytes, part: bytes) -> Answer:
    def answer(_line: str, connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(part)

    return answer


def test_endless_bodies_end_at_the_bound() -> None:
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    chunked = endless(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n", chunk)
    unending = endless(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n", b"x" * 65536)
    for answer in (chunked, unending):
        failed = failure(answer)
        assert isinstance(failed, TooLarge)
        assert failed.limit == MAX_BYTES


def test_endless_headers_end_too() -> None:
    assert isinstance(failure(endless(b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n")), FetchFailed)


def test_what_says_that_it_is_too_long_is_not_read() -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {MAX_BYTES + 1}\r\n\r\n"
    assert isinstance(failure(head.encode()), TooLarge)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 50\r\n\r\ntoo little",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"",
    ],
    ids=["short", "two lengths", "negative", "chunks", "nul", "ssh", "nothing"],
)
def test_answers_that_lie_are_refused(answer: bytes) -> None:
    assert isinstance(failure(answer), FetchFailed)


def test_more_than_was_announced_is_left_where_it_is() -> None:
    with site(says(page(b"hello") + b"HTTP/1.1 200 OK\r\n\r\nmore")) as running:
        assert open_fetcher("127.0.0.1").fetch(running.url()).content == b"hello"


def packed(body: bytes) -> bytes:
    return page(body, "text/plain", "Content-Encoding: gzip")


def test_packed_answers_are_unpacked() -> None:
    words = b"".join(b"word %d " % number for number in range(100_000))
    with site(says(packed(gzip.compress(words)))) as running:
        assert open_fetcher("127.0.0.1").fetch(running.url()).content == words


def test_bombs_do_not_go_off() -> None:
    assert "100 times its size" in failure(packed(gzip.compress(b"\n" * 2_000_000))).detail
    assert isinstance(failure(packed(gzip.compress(b"\n" * 400_000_000))), TooLarge)


@pytest.mark.parametrize(
    "body",
    [gzip.compress(b"word " * 99)[:-9], b"no gzip", gzip.compress(b"a") + b"tail", gzip.compress(b"a") * 2],
    ids=["cut", "plain", "tail", "two"],
)
def test_damaged_packing_is_refused(body: bytes) -> None:
    assert isinstance(failure(packed(body)), FetchFailed)


def test_other_packings_were_not_asked_for() -> None:
    for encoding in ("br", "zstd", "deflate", "gzip, gzip"):
        assert "not asked for" in failure(page(b"x", "text/plain", f"Content-Encoding: {encoding}")).detail


def certified(folder: Path, *names: x509.GeneralName) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For a server of these names, and for a client that trusts it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "site")])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    certificate = (
        builder.not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )  # fmt: skip
    (folder / "site.pem").write_bytes(private + pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "site.pem")
    return server, ssl.create_default_context(cadata=pem.decode())


def test_tls_is_verified_against_the_name_not_the_address(tmp_path: Path) -> None:
    server, client = certified(tmp_path, x509.DNSName("site.test"))
    to_it = looked_up(["127.0.0.1"])
    with site(says(page(b"secure")), tls=server) as running:
        url = f"https://site.test:{running.port}/"
        assert open_fetcher("127.0.0.1", resolve=to_it, tls=client).fetch(url).content == b"secure"
        for fetcher, address in (
            (open_fetcher("127.0.0.1", resolve=to_it, tls=client), url.replace("site.", "other.")),
            (open_fetcher("127.0.0.1", resolve=to_it, tls=client), url.replace("site.test", "127.0.0.1")),
            (open_fetcher("127.0.0.1", resolve=to_it), url),
        ):
            with pytest.raises(FetchFailed, match="certificate"):
                fetcher.fetch(address)
        assert len(running.requests) == 1, "nothing was said to a site that is somebody else"


def test_an_address_can_have_a_certificate(tmp_path: Path) -> None:
    server, client = certified(tmp_path, x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    with site(says(page(b"secure")), tls=server) as running:
        assert open_fetcher("127.0.0.1", tls=client).fetch(f"https://127.0.0.1:{running.port}/").content == b"secure"


def test_https_does_not_lead_to_http(tmp_path: Path, listener: Site) -> None:
    server, client = certified(tmp_path, x509.DNSName("site.test"))
    with site(says(redirect(listener.url())), tls=server) as running:
        fetcher = open_fetcher("127.0.0.1", resolve=looked_up(["127.0.0.1"]), tls=client)
        assert "from https to http" in refusal(fetcher, f"https://site.test:{running.port}/").detail
