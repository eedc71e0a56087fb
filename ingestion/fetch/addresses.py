"""Which URLs may be fetched, and which addresses connected to: only public ones, and those that the operator allows. Pure.

A URL is taken apart once, strictly; what is asked for later is made of the parts and never of the text. A host that looks
like a number is an address or refused: resolvers read `0x7f.1`, `017700000001` and `2130706433` as 127.0.0.1.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import SplitResult, quote, urlsplit

import idna

from config.errors import SetupError, UrlRefused, storable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_URL_CHARS = 2_000
PORTS = {"http": 80, "https": 443}

#: Not public, whatever the table of this Python says: releases differ in `is_global`.
_REFUSED = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",  # this network; Linux connects to itself
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; 100.100.100.200 is a cloud's metadata
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's host agent at a public address
        "169.254.0.0/16",  # link-local; 169.254.169.254 is most clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments; 192.0.0.192 is a cloud's metadata
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address in disguise
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
#: Of IPv6, public is only what lies in here: no loopback, ULA, link-local, multicast, `::a.b.c.d`, local-use NAT64.
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\x9f\\]")  # what parsers drop, trim or take for a slash
_NETLOC = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:@%]+))(?::(?P<port>[0-9]{0,5}))?")
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class Target:
    """A URL in its parts. `host`: a lower-case ASCII name, or an address without brackets."""

    scheme: str
    host: str
    port: int
    path: str  #: with the query, in ASCII

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """`hosts` may lead to any address; `networks` may be led to by any name."""

    ports: frozenset[int] = frozenset(PORTS.values())
    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, ports: Iterable[int], allowed: Iterable[str]) -> UrlPolicy:
        """`allowed`: host names, addresses and networks. Raise SetupError on anything else."""
        hosts, networks = set[str](), list[Network]()
        for entry in allowed:
            try:
                networks.append(ipaddress.ip_network(entry))
            except ValueError:
                try:
                    hosts.add(_host_name(entry))
                except UrlRefused as error:
                    raise SetupError(f"CARREL_URL_FETCH_ALLOW: {entry!r} is no host name, address or network.") from error
        return cls(frozenset(ports), frozenset(hosts), tuple(networks))

    def target(self, url: str) -> Target:
        """Raise UrlRefused, saying why. A name is not looked up here."""
        parts = _split(url)
        found = _NETLOC.fullmatch(parts.netloc)
        if found is None:
            _refuse("has no host that can be asked; user names, passwords and zones are not taken")
        host = _canonical(found["six"]) if found["six"] else _host_name(found["name"])
        port = int(found["port"] or PORTS[parts.scheme])
        if port not in self.ports:
            _refuse(f"names port {port}; fetched are {', '.join(map(str, sorted(self.ports)))}")
        if (address := _as_address(host)) and not self.permits(host, address):
            _refuse("does not lead to a public address")
        path = quote(parts.path or "/", safe="/%!$&'()*+,;=:@~")
        query = f"?{quote(parts.query, safe='/%!$&()*+,;=:@~?')}" if parts.query else ""
        return Target(parts.scheme, host, port, path + query)

    def permits(self, host: str, address: Address) -> bool:
        """Whether the address that this host leads to may be connected to."""
        inner = _inside(address)
        return host in self.hosts or is_public(inner) or any(inner in network for network in self.networks)


def is_public(address: Address) -> bool:
    inner = _inside(address)
    if isinstance(inner, ipaddress.IPv6Address) and inner not in _GLOBAL_UNICAST:
        return False
    return inner.is_global and not inner.is_multicast and not any(inner in network for network in _REFUSED)


def _inside(address: Address) -> Address:
    """The IPv4 address that a mapped or translated one (RFC 6052) stands for, else itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _split(url: str) -> SplitResult:
    if len(url) > MAX_URL_CHARS:
        raise UrlRefused(f"A URL has at most {MAX_URL_CHARS} characters.", field="url", limit=MAX_URL_CHARS)
    if _FORBIDDEN.search(url) or not storable(url):
        _refuse("contains blanks, control characters or backslashes; encode them")
    try:
        parts = urlsplit(url)
    except ValueError:
        _refuse("cannot be parsed")
    if parts.scheme not in PORTS:
        _refuse("does not begin with http:// or https://")
    return parts


def _canonical(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        _refuse("has brackets around something that is no IPv6 address")


def _host_name(text: str) -> str:
    """Lower-case ASCII (UTS 46), without the dot at the end."""
    try:
        name = text.lower() if text.isascii() else idna.encode(text, uts46=True).decode()
    except UnicodeError:  # which IDNAError is
        _refuse("has a host name that is not valid")
    name = name.removesuffix(".")
    if _NAME.fullmatch(name) is None:
        _refuse("has a host name that is not valid")
    if _NUMERIC.fullmatch(name.rpartition(".")[2]) and not isinstance(_as_address(name), ipaddress.IPv4Address):
        _refuse("has a number for a host; an address is written as four decimal numbers")
    return name


def _as_address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _refuse(why: str) -> NoReturn:
    raise UrlRefused(f"The URL {why}.", field="url")
