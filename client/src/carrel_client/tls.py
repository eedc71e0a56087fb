"""What all connections of a process trust: reading the authorities takes 20 ms, and is done once."""

from __future__ import annotations

import ssl
from functools import cache

import httpx2


@cache
def trusted() -> ssl.SSLContext:
    return httpx2.create_ssl_context()
