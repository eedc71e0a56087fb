"""Which URLs and addresses are refused, in every spelling that was thought of."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import SetupError, UrlRefused
from ingestion.fetch.addresses import UrlPolicy, is_public
from tests.hostile_urls import HOSTILE

POLICY = UrlPolicy()
EVERY_PORT = UrlPolicy(ports=frozenset(range(1, 65536)))

PUBLIC = ("1.1.1.1", "8.8.8.8", "93.184.215.14", "2606:4700:4700::1111", "2a00:1450:4001:80e::200e", "64:ff9b::808:808")
NOT_PUBLIC = (
    "0.1.2.3", "100.64.0.1", "100.127.255.255", "127.8.8.8", "169.254.1.1", "172.31.255.255", "192.0.0.8", "192.0.0.9",
    "192.0.2.1", "192.88.99.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "239.255.255.255", "240.0.0.1",
    "::", "::1", "::8.8.8.8", "100::1", "2001::1", "2001:2::1", "2001:20::1", "2001:db8::1", "2002:808:808::1", "3fff::1",
    "4000::1", "5f00::1", "fc00::1", "fd12::1", "fe80::1", "febf::1", "ff0e::1", "64:ff9b:1::808:808", "::ffff:10.0.0.1",
)  # fmt: skip


@pytest.mark.parametrize("url", HOSTILE)
def test_hostile_spellings_are_refused(url: str) -> None:
    with pytest.raises(UrlRefused) as refused:
        EVERY_PORT.target(url.replace("{port}", "8080"))
    assert refused.value.field == "url"


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_taken(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_other_addresses_are_not(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    assert not POLICY.permits("example.org", ipaddress.ip_address(address))


@pytest.mark.parametrize(
    ("url", "fetched"),
    [
        ("http://example.org", "http://example.org/"),
        ("HTTPS://Example.ORG.:443/a/../b?q=1#part", "https://example.org/a/../b?q=1"),
        ("http://example.org:80/", "http://example.org/"),
        ("http://example.org:443/", "http://example.org:443/"),
        ("https://bücher.example/bücher?ü=%C3%BC", "https://xn--bcher-kva.example/b%C3%BCcher?%C3%BC=%C3%BC"),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
        ("https://straße.example/", "https://xn--strae-oqa.example/"),
        ("http://a_b.example/", "http://a_b.example/"),
        ("http://1.1.1.1/", "http://1.1.1.1/"),
        ("http://[2606:4700:4700:0::1111]/", "http://[2606:4700:4700::1111]/"),
        ("http://example.org?x", "http://example.org/?x"),
    ],
)
def test_usual_urls_are_normalised(url: str, fetched: str) -> None:
    assert POLICY.target(url).url == fetched
    assert POLICY.target(fetched).url == fetched


def test_other_ports_are_for_operators() -> None:
    with pytest.raises(UrlRefused, match="names port 8080; fetched are 80, 443"):
        POLICY.target("http://example.org:8080/")
    assert UrlPolicy.of([8080], []).target("http://example.org:8080/").authority == "example.org:8080"


def test_operators_allow_hosts_and_networks() -> None:
    policy = UrlPolicy.of([80], ["Wiki.Intern", "10.1.0.0/16", "::1"])
    inside, beside = ipaddress.ip_address("10.1.2.3"), ipaddress.ip_address("10.2.2.3")
    assert policy.permits("wiki.intern", beside)
    assert policy.permits("example.org", inside)
    assert not policy.permits("example.org", beside)
    assert policy.target("http://10.1.2.3/").host == "10.1.2.3"
    assert policy.target("http://[::1]/").host == "::1"
    assert policy.target("http://[::ffff:10.1.2.3]/").host == "::ffff:a01:203"
    with pytest.raises(UrlRefused):
        policy.target("http://127.0.0.1/")


@pytest.mark.parametrize("entry", ["10.0.0.1/8", "http://wiki.intern", "*.intern", "127.1", "a b"])
def test_operators_mistakes_are_named(entry: str) -> None:
    with pytest.raises(SetupError, match="CARREL_URL_FETCH_ALLOW"):
        UrlPolicy.of([80], [entry])


@given(st.integers(0, 2**32 - 1), st.sampled_from(["{}", "0x{:x}", "0{:o}", "0X{:08X}", "{}."]))
def test_no_number_is_a_host(number: int, spelling: str) -> None:
    with pytest.raises(UrlRefused):
        POLICY.target(f"http://{spelling.format(number)}/")


@given(st.text(alphabet="0123456789abcdefxX.:%[]@/\\#?-_ ", max_size=24))
def test_what_the_system_reads_as_an_address_is_checked_as_that_address(host: str) -> None:
    """Whatever passes is a name, or an address written as everybody reads it."""
    try:
        target = POLICY.target(f"http://{host}/")
    except UrlRefused:
        return
    try:
        read = socket.inet_aton(target.host)
    except OSError:
        return
    assert socket.inet_ntoa(read) == target.host
    assert is_public(ipaddress.ip_address(target.host))


@given(st.ip_addresses(v=4))
def test_every_disguise_of_an_address_is_seen_through(address: ipaddress.IPv4Address) -> None:
    number, public = int(address), is_public(address)
    assert public <= address.is_global
    assert is_public(ipaddress.IPv6Address((0xFFFF << 32) | number)) == public
    assert is_public(ipaddress.IPv6Address((0x64FF9B << 96) | number)) == public
    assert not is_public(ipaddress.IPv6Address(number))
    assert not is_public(ipaddress.IPv6Address((0x2002 << 112) | (number << 80)))


@given(st.text(max_size=60))
def test_any_text_is_taken_or_refused(text: str) -> None:
    for url in (text, f"http://{text}", f"http://example.org/{text}"):
        try:
            target = POLICY.target(url)
        except UrlRefused:
            continue
        assert target.url.isascii()
        assert POLICY.target(target.url) == target
