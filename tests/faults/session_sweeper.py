"""Sweeps sessions of a database over and over, in small pieces, until it is killed."""

from __future__ import annotations

import sys

from config.clock import system_clock
from config.database import Database
from rag.sessions import sweeping
from rag.sessions.sessions import Sessions
from rag.sessions.sweeping import SessionSweeper
from tenants.quotas import UNLIMITED

if __name__ == "__main__":
    sweeping.ROWS, sweeping.PAGE = 20, 5
    sweeper = SessionSweeper(Sessions(Database(sys.argv[1]), system_clock, UNLIMITED), pause=lambda _seconds: None)
    print("ready", flush=True)
    while True:
        sweeper.run_once()
