"""An OpenAI-compatible language model on loopback that misbehaves on command, and remembers every request."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

USED = 77  # tokens that it says it used


def _chat(text: object, **more: object) -> dict[str, object]:
    return {"choices": [{"message": {"role": "assistant", "content": text}}], "usage": {"total_tokens": USED}, **more}


#: What is answered instead of a chat.
WRONG: dict[str, object] = {
    "list": [],
    "no choices": {"choices": []},
    "no message": {"choices": [{}]},
    "no text": _chat(None),
    "text is a list": _chat(["a"]),
}


@dataclass
class Llm:
    """`acts`: of one request after the other, the last for all that follow: "ok", "hang", "drip", "flood", "garbage", a
    status, or one of WRONG. `says`: the text of a good answer."""

    acts: list[str] = field(default_factory=lambda: ["ok"])
    says: str = '{"queries": ["wooden shelf"]}'
    usage: object = USED
    headers: dict[str, str] = field(default_factory=dict)
    url: str = ""
    received: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def asked(self) -> list[str]:
        """What users' messages said."""
        return [request["messages"][1]["content"] for request in self.received]


class _Handler(BaseHTTPRequestHandler):
    llm: ClassVar[Llm]

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        llm = self.llm
        act = llm.acts[min(len(llm.received), len(llm.acts) - 1)]
        llm.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        llm.keys.append(self.headers["Authorization"])
        if act == "hang":
            llm.released.wait(30)
            return
        good = _chat(llm.says, usage={"total_tokens": llm.usage})
        body = {"garbage": b"<html>", "flood": b" " * (8 << 20)}.get(act, json.dumps(WRONG.get(act, good)).encode())
        self.send_response(int(act) if act.isdigit() else 200)
        for name, value in llm.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            for at in range(0, len(body), 8 if act == "drip" else len(body)):
                self.wfile.write(body[at : at + 8] if act == "drip" else body)
                if act == "drip" and llm.released.wait(0.02):
                    return
        except OSError:  # a client that has had enough
            self.close_connection = True


@contextmanager
def serving() -> Iterator[Llm]:
    llm = Llm()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"llm": llm}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    llm.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield llm
    finally:
        llm.released.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
