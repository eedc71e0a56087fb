"""Starts engine, workers and api, restarts one that dies, and stops all of them on SIGTERM, in 20 s at most."""

from __future__ import annotations

import http.client
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

from api.cli.telling import EXIT_SETUP, tell_ready
from api.processes.lifecycle import Lifecycle
from api.processes.locks import hold_lock
from api.processes.plans import EnginePlan, ServicePlan, command_of
from config.errors import SetupError

log = logging.getLogger(__name__)

PAUSE_S, MAX_PAUSE_S, STEADY_S = 0.2, 10.0, 10.0
TICK_S = 0.1
LOOK_S = 0.03  # between two looks at whether the service is ready
#: Who is served stops before who serves; seconds that each is given until it is killed.
STOP_S = {"api": 11.5, "worker": 6.0, "engine": 2.5}


@dataclass(slots=True)
class Child:
    name: str
    arguments: list[str]
    descriptors: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    restart_at: float = 0.0
    deaths: int = field(default=0)

    def start(self) -> None:
        self.started = time.monotonic()
        command = command_of(*self.arguments, "--supervised")
        # Its own session: Ctrl-C reaches the supervisor only, which then stops the children in order.
        self.process = subprocess.Popen(  # noqa: S603  our own command line
            command, stdin=subprocess.PIPE, pass_fds=self.descriptors, start_new_session=True
        )

    def died(self) -> int | None:
        return None if self.process is None else self.process.poll()

    def ask_to_stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def stop(self, within_s: float) -> None:
        if self.process is None:
            return
        try:
            self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            log.warning("child did not stop in time and is killed", extra={"child": self.name})
            self.kill()
            self.process.wait()

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()


class Supervisor:
    def __init__(self, plan: ServicePlan) -> None:
        self._plan = plan
        self._children: dict[str, Child] = {}
        self._life = Lifecycle(at_once=self._kill_all)
        # Before the port is tried: a second start on the same data should hear of the data, not of the port.
        self._lock = hold_lock(plan.data_dir, "service")
        self._listener = _listen(plan.host, plan.port)
        self._host, self._port = self._listener.getsockname()[:2]
        self.url = f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{self._port}"
        descriptor = self._listener.fileno()
        api = Child("api", ["api", "--fd", str(descriptor)], (descriptor,))
        if plan.engine is not None:
            self._children["engine"] = engine_child(plan.engine)  # first: the others ask for it
        for number in range(1, plan.workers + 1):
            name = "worker" if number == 1 else f"worker-{number}"
            self._children[name] = Child(name, ["worker"])
        self._children["api"] = api

    def run(self) -> int:
        """Block until SIGTERM or SIGINT; return the exit status."""
        with self._lock:
            self._plan.service_file.write_text(json.dumps({"url": self.url, "pid": os.getpid()}))
            try:
                return self._watch()
            finally:
                self._listener.close()  # the api's own copy is the last one: when it closes, nobody can connect
                for name, within_s in STOP_S.items():
                    stop([child for child in self._children.values() if child.arguments[0] == name], within_s)
                self._plan.service_file.unlink(missing_ok=True)
                self._life.stopped()

    def _kill_all(self) -> None:
        for child in self._children.values():
            child.kill()
        self._plan.service_file.unlink(missing_ok=True)

    def _watch(self) -> int:
        for child in self._children.values():
            child.start()
        self._life.started()
        threading.Thread(target=self._announce, name="announcer", daemon=True).start()
        while not self._life.stopping.wait(TICK_S):
            for child in self._children.values():
                status = self._look_after(child)
                if status == EXIT_SETUP:
                    return EXIT_SETUP
        self._life.draining()
        return 0

    def _announce(self) -> None:
        while not self._life.stopping.wait(LOOK_S):
            if self._ready():
                self._life.ready()
                self._greet()
                return

    def _greet(self) -> None:
        if self._plan.greeting == "json":
            tell_ready(self.url)
            return
        # By a process of its own: what it takes to talk to people and to the service would stay in this one.
        command = [sys.executable, "-P", "-m", "api.cli.greeting", self._plan.greeting, self.url]
        if status := subprocess.run(command, check=False).returncode:  # noqa: S603  our own command line
            log.error("the greeting failed", extra={"status": status})

    def _look_after(self, child: Child) -> int | None:
        status = child.died()
        now = time.monotonic()
        if status is None or status == EXIT_SETUP:
            return status
        if child.restart_at == 0.0:
            child.deaths = 1 if now - child.started > STEADY_S else child.deaths + 1
            pause = 0.0 if child.deaths == 1 else min(PAUSE_S * 2 ** min(child.deaths, 10), MAX_PAUSE_S)
            child.restart_at = now + pause
            log.error(
                "child died",
                extra={"child": child.name, "status": status, "ran_s": round(now - child.started, 3), "restart_in_s": pause},
            )
        if now >= child.restart_at:
            child.restart_at = 0.0
            try:
                child.start()
            except OSError:  # no memory or no process left; the others go on, and the next look counts one death more
                log.exception("child could not be started; it is tried again", extra={"child": child.name})
        return None

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=2.5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def stop(children: list[Child], within_s: float) -> None:
    """All of them within that time, or they are killed."""
    for child in children:
        child.ask_to_stop()
    deadline = time.monotonic() + within_s
    for child in children:
        child.stop(max(0.0, deadline - time.monotonic()))


def engine_child(plan: EnginePlan) -> Child:
    return Child("engine", ["engine", "--plan", plan.text()])


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SetupError(
            f"Port {port} on {host} cannot be used ({error.strerror}); set CARREL_PORT to another, or 0."
        ) from error
    listener.listen(1024)
    return listener
