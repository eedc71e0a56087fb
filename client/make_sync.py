"""Writes what of the client can be derived: its synchronous modules from its asynchronous ones, and which names are public
where. `python client/make_sync.py`, or `make client`.

What is written by hand is `_async/`; of `_sync/`, `world.py` only, which does with threads what `_async/world.py` does with an
event loop. The rest differs in words alone, and those are changed here, token by token.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Sequence
from pathlib import Path

PACKAGE = Path(__file__).parent / "src" / "carrel_client"
BY_HAND = "world.py"
#: Modules and classes that applications have no use for, or import by their own names.
INNER_MODULES = (
    "adapting",
    "asking",
    "budgets",
    "bulk",
    "exchange",
    "langchain",
    "langchain_history",
    "llama_index",
    "streams",
    "tls",
    "transport",
)
INNER_MODULES += ("waiting", "world")
INNER = ("Brought", "Model", "Otherwise", "Upload")
INNER += ("AsyncRecalling", "AsyncRecallsSession", "AsyncRecallsSubject")
OPENING, CLOSING = ("(", "[", "{"), (")", "]", "}")
DROPPED = ("async", "await")
WORDS = {
    "_async": "_sync",
    "aclose": "close",
    "aclosing": "closing",
    "aiter_bytes": "iter_bytes",
    "anext": "next",
    "aread": "read",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "AsyncClient": "Client",
    "StopAsyncIteration": "StopIteration",
}
IN_TEXTS = (
    (r"\(await ([^()]+\([^()]*\))\)", r"\1"),
    (r"\bawait ", ""),
    (r"\basync (?=for|with|def)", ""),
    (r"\bAsync(?=[A-Z])", ""),
    ("for an event loop: nouns and their wire, written by hand", "for threads, written by a program"),
    ("for an event loop", "for threads"),
    (r"\[(\w+) for \1 in ([^\]]+?\))\]", r"list(\2)"),
)
GENERATOR = (r"\bAsyncGenerator\[(.+?), None\]", r"Generator[\1, None, None]")


def synchronous(source: str) -> str:
    """The twin of an asynchronous module, before it is formatted."""
    source = re.sub(*GENERATOR, source)
    lines, changes = source.splitlines(keepends=True), list[tuple[int, int, int, int, str]]()
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    needless = {one for place in range(len(tokens)) for one in _parentheses(place, tokens)}
    for place, token in enumerate(tokens):
        (row, start), (last, end) = token.start, token.end
        if token.type == tokenize.NAME and token.string in DROPPED:
            blank = end < len(lines[row - 1]) and lines[row - 1][end] == " "
            changes.append((row, start, last, end + blank, ""))
        elif place in needless:
            changes.append((row, start, last, end, ""))
        elif (new := _changed(token)) != token.string:
            changes.append((row, start, last, end, new))
    for row, start, last, end, new in reversed(changes):
        lines[row - 1 : last] = [lines[row - 1][:start] + new + lines[last - 1][end:]]
    return "".join(lines)


def _parentheses(place: int, tokens: Sequence[tokenize.TokenInfo]) -> tuple[int, ...]:
    """The places of a pair that begins here and holds a call that is awaited, and taken apart: `(await a.b()).c`."""
    if tokens[place].string != "(" or tokens[place + 1].string != "await":
        return ()
    depth, here = 1, place + 1
    while depth:
        here += 1
        depth += (tokens[here].string in OPENING) - (tokens[here].string in CLOSING)
        if depth == 1 and tokens[here].type == tokenize.OP and tokens[here].string not in (".", *CLOSING):
            return ()
    return (place, here) if tokens[here + 1].string in (".", "[") else ()


def _changed(token: tokenize.TokenInfo) -> str:
    if token.type == tokenize.NAME:
        return WORDS.get(token.string, re.sub(r"^Async(?=[A-Z])", "", token.string))
    if token.type in (tokenize.STRING, tokenize.COMMENT):
        text = token.string
        for pattern, new in IN_TEXTS:
            text = re.sub(pattern, new, text)
        return text
    return token.string


def public() -> dict[str, str]:
    """The module of each public class, by its name, inside the package."""
    homes: dict[str, str] = {}
    for path in [*PACKAGE.glob("*.py"), *PACKAGE.glob("_async/*.py")]:
        inside = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if path.stem not in ("__init__", "_names", *INNER_MODULES):
            classes = [node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
            homes |= {name: inside for name in classes if not name.startswith("_") and name not in INNER}
    twins = {name.removeprefix("Async"): home.replace("_async", "_sync") for name, home in homes.items() if "_async" in home}
    return dict(sorted((homes | twins).items()))


def write(folder: Path) -> None:
    """All of it, formatted as the rest of the repository; `folder` is the package, or another to compare with it."""
    (folder / "_sync").mkdir(exist_ok=True)
    for path in sorted((PACKAGE / "_async").glob("*.py")):
        if path.name != BY_HAND:
            (folder / "_sync" / path.name).write_text(synchronous(path.read_text(encoding="utf-8")), encoding="utf-8")
    homes, doc = public(), '"""Where the public names of the client are: written by `make client`."""\n\n'
    (folder / "_names.py").write_text(f"{doc}HOMES = {homes!r}\n", encoding="utf-8")
    imports = "\n".join(f"from carrel_client.{home} import {name} as {name}" for name, home in homes.items())
    (folder / "__init__.pyi").write_text(f"{doc}{imports}\n", encoding="utf-8")
    written = [str(folder / name) for name in ("_sync", "_names.py", "__init__.pyi")]
    ruff = str(Path(sys.executable).with_name("ruff"))
    config = ["--config", str(PACKAGE.parents[2] / "pyproject.toml"), "--quiet", "--no-cache"]
    subprocess.run([ruff, "check", "--select", "I,UP028,UP034", "--fix", "--unsafe-fixes", *config, *written], check=True)
    subprocess.run([ruff, "format", *config, *written], check=True)


if __name__ == "__main__":
    for path in (PACKAGE / "_sync").glob("*.py"):
        if path.name != BY_HAND:
            path.unlink()
    write(PACKAGE)
