"""Which URLs and addresses are refused, in every spelling that was thought of."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import SetupError, UrlRefused
from ingestion.fetch.addresses import MAX_URL_CHARS, UrlPolicy, is_public

POLICY = UrlPolicy()
EVERY_PORT = UrlPolicy(ports=frozenset(range(1, 65536)))

#: Refused by their form alone. `{port}` is a listener's on 127.0.0.1, for those who try them for real.
HOSTILE = (
    "http://127.0.0.1:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://127.255.255.254:{port}/",
    "http://2130706433:{port}/",
    "http://2130706433.:{port}/",
    "http://0x7f000001:{port}/",
    "http://0X7F000001:{port}/",
    "http://0x7f.0.0.1:{port}/",
    "http://0x7f.0x0.0x0.0x1:{port}/",
    "http://0x7f.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://0177.0.0.01:{port}/",
    "http://00000177.0.0.1:{port}/",
    "http://017700000001:{port}/",
    "http://127.0.0.0x1:{port}/",
    "http://127.0.0.01:{port}/",
    "http://127.00.00.1:{port}/",
    "http://4294967297:{port}/",
    "http://383.0.0.1:{port}/",
    "http://127.0.0.1.0x:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://0x0:{port}/",
    "http://00:{port}/",
    "http://１２７.0.0.1:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://127。0。0。1:{port}/",
    "http://127．0．0．1:{port}/",
    "http://0ｘ7f000001:{port}/",
    "http://127.0.0.¹:{port}/",
    "http://%31%32%37.0.0.1:{port}/",
    "http://127.0.0%2e1:{port}/",
    "http://%6c%6f%63alhost:{port}/",
    "http://127.0.0.1%00.example.org:{port}/",
    "http://127.0.0.1\x00.example.org:{port}/",
    "http://127.0.0.1\t:{port}/",
    "http://127.0.0.1\n:{port}/",
    "ht\ntp://127.0.0.1:{port}/",
    " http://127.0.0.1:{port}/",
    "http://\u00ad127.0.0.1:{port}/",
    "http://127.0.0.\u200b1:{port}/",
    "http://[::1]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[0000:0000:0000:0000:0000:0000:0000:0001]:{port}/",
    "http://[::]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[::7f00:1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[0:0:0:0:0:FFFF:127.0.0.1]:{port}/",
    "http://[::ffff:0:127.0.0.1]:{port}/",
    "http://[64:ff9b::127.0.0.1]:{port}/",
    "http://[64:ff9b::a9fe:a9fe]:{port}/",
    "http://[64:ff9b:1::127.0.0.1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[2001:0:7f00:1::80ff:fffe]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://[fe80::1%lo]:{port}/",
    "http://[::1%lo]:{port}/",
    "http://[fe80::5efe:127.0.0.1]:{port}/",
    "http://[fec0::1]:{port}/",
    "http://[fd00:ec2::254]:{port}/",
    "http://[ff02::1]:{port}/",
    "http://[::ffff:127.1]:{port}/",
    "http://[::ffff:0x7f000001]:{port}/",
    "http://[127.0.0.1]:{port}/",
    "http://[v1.127.0.0.1]:{port}/",
    "http://[::1]example.org:{port}/",
    "http://[::1:{port}/",
    "http://::1:{port}/",
    "http://169.254.169.254:{port}/latest/meta-data/",
    "http://168.63.129.16:{port}/",
    "http://100.100.100.200:{port}/",
    "http://192.0.0.192:{port}/",
    "http://10.0.0.1:{port}/",
    "http://172.16.0.1:{port}/",
    "http://192.168.0.1:{port}/",
    "http://198.18.0.1:{port}/",
    "http://224.0.0.1:{port}/",
    "http://255.255.255.255:{port}/",
    "http://example.org@127.0.0.1:{port}/",
    "http://example.org:80@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}@example.org/",
    "http://@127.0.0.1:{port}/",
    "http://example.org\\@127.0.0.1:{port}/",
    "http:\\\\127.0.0.1:{port}\\",
    "http:/\\127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\.example.org/",
    "http:127.0.0.1:{port}/",
    "http:/127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "127.0.0.1:{port}",
    "http://127.0.0.1:{port}:80/",
    "http://127.0.0.1:+{port}/",
    "http://127.0.0.1:{port}a/",
    "http://127.0.0.1:０{port}/",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1#@example.org:{port}/",
    "http://127.0.0.1?@example.org:{port}/",
    "file:///etc/passwd",
    "file://127.0.0.1:{port}/etc/passwd",
    "ftp://127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/_GET",
    "dict://127.0.0.1:{port}/",
    "data:text/plain,hello",
    "javascript:alert(1)",
    "unix:///var/run/docker.sock",
    "http+unix://127.0.0.1:{port}/",
    "jar:http://127.0.0.1:{port}/!/",
    "http://",
    "http://:{port}/",
    "http://./",
    "http://..:{port}/",
    "http://a..b:{port}/",
    "http://-\u0338.example:{port}/",
    "http://" + "a" * 64 + ".example:{port}/",
    "http://127.0.0.1:{port}/" + "a" * MAX_URL_CHARS,
    "",
)

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
