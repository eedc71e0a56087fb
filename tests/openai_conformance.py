"""How much of what the OpenAI SDK's types name is taken and answered here. `python -m tests.openai_conformance` writes the
table into docs/openai.md; a test compares it.

Counted are the leaves of every parameter and of every answer: what the SDK's types say, against the OpenAPI document.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

import openai
from openai._legacy_response import HttpxBinaryResponseContent
from openai._types import NotGiven, Omit
from openai.pagination import SyncCursorPage, SyncPage
from pydantic import BaseModel
from typing_extensions import is_typeddict

from api.app import create_app
from api.wiring.api import ApiServices

PAGE = Path(__file__).parents[1] / "docs" / "openai.md"
BEGIN, END = "<!-- conformance: generated -->", "<!-- end -->"
OWN = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}  #: parameters of the SDK itself
_STORES, _FILES = "/v1/vector_stores", "/v1/vector_stores/{vector_store_id}/files"
_BATCHES = "/v1/vector_stores/{vector_store_id}/file_batches"
#: Every method of the SDK's resources that is one request, with the operation that answers it.
METHODS: Mapping[str, Mapping[str, str]] = {
    "vector stores": {
        "vector_stores.create": f"POST {_STORES}",
        "vector_stores.retrieve": f"GET {_STORES}/{{vector_store_id}}",
        "vector_stores.update": f"POST {_STORES}/{{vector_store_id}}",
        "vector_stores.list": f"GET {_STORES}",
        "vector_stores.delete": f"DELETE {_STORES}/{{vector_store_id}}",
        "vector_stores.search": f"POST {_STORES}/{{vector_store_id}}/search",
        "vector_stores.files.create": f"POST {_FILES}",
        "vector_stores.files.retrieve": f"GET {_FILES}/{{file_id}}",
        "vector_stores.files.update": f"POST {_FILES}/{{file_id}}",
        "vector_stores.files.list": f"GET {_FILES}",
        "vector_stores.files.delete": f"DELETE {_FILES}/{{file_id}}",
        "vector_stores.files.content": f"GET {_FILES}/{{file_id}}/content",
        "vector_stores.file_batches.create": f"POST {_BATCHES}",
        "vector_stores.file_batches.retrieve": f"GET {_BATCHES}/{{batch_id}}",
        "vector_stores.file_batches.cancel": f"POST {_BATCHES}/{{batch_id}}/cancel",
        "vector_stores.file_batches.list_files": f"GET {_BATCHES}/{{batch_id}}/files",
    },
    "files": {
        "files.create": "POST /v1/files",
        "files.retrieve": "GET /v1/files/{file_id}",
        "files.list": "GET /v1/files",
        "files.delete": "DELETE /v1/files/{file_id}",
        "files.content": "GET /v1/files/{file_id}/content",
        "files.retrieve_content": "GET /v1/files/{file_id}/content",
    },
    "embeddings": {"embeddings.create": "POST /v1/embeddings"},
    "models": {
        "models.retrieve": "GET /v1/models/{model}",
        "models.list": "GET /v1/models",
        "models.delete": "DELETE /v1/models/{model}",
    },
    "uploads": {
        "uploads.create": "POST /v1/uploads",
        "uploads.cancel": "POST /v1/uploads/{upload_id}/cancel",
        "uploads.complete": "POST /v1/uploads/{upload_id}/complete",
        "uploads.parts.create": "POST /v1/uploads/{upload_id}/parts",
    },
}
#: What the SDK puts together from the above.
HELPERS = re.compile(r".*poll|upload|upload_file_chunked|wait_for_processing|with_.*")


@dataclass
class Count:
    there: int = 0
    missing: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        return 100 * self.there / (self.there + len(self.missing))

    def add(self, name: str, there: bool) -> None:
        if there:
            self.there += 1
        else:
            self.missing.append(name)


def methods(resource: str) -> Iterator[str]:
    """Names of what the resource and those beneath it can be asked for, by the SDK itself."""
    client = openai.OpenAI(api_key="-", base_url="http://127.0.0.1:9/v1")
    yield from _methods(getattr(client, resource), resource)
    client.close()


def _methods(resource: Any, path: str) -> Iterator[str]:
    for name, value in inspect.getmembers(type(resource)):
        if name.startswith("_") or HELPERS.fullmatch(name):
            continue
        inner = getattr(resource, name)
        yield from _methods(inner, f"{path}.{name}") if not callable(value) else [f"{path}.{name}"]


def leaves(hint: Any, seen: tuple[Any, ...] = ()) -> set[tuple[str, ...]]:
    """Ways to every leaf of a type: fields of models and typed dicts, through lists and unions."""
    if hint in seen:
        return set()
    if (fields := _fields(hint)) is not None:
        return {(name, *way) for name, inner in fields.items() for way in leaves(inner, (*seen, hint)) or {()}}
    if get_origin(hint) is Literal or get_origin(hint) is dict:
        return set()
    return set().union(*(leaves(inner, seen) for inner in get_args(hint) if inner not in (Omit, NotGiven, type(None))))


def _fields(hint: Any) -> Mapping[str, Any] | None:
    if is_typeddict(hint):
        return get_type_hints(hint)
    if inspect.isclass(hint) and issubclass(hint, BaseModel):
        return {name: field.annotation for name, field in hint.model_fields.items()}
    return None


def answered(returned: Any) -> set[tuple[str, ...]]:
    """Ways to the leaves of what a method returns; the bytes of a file are one."""
    if returned in (HttpxBinaryResponseContent, str):
        return {()}
    if get_origin(returned) in (SyncCursorPage, SyncPage):
        more = {("has_more",)} if get_origin(returned) is SyncCursorPage else set()
        return {("data", *way) for way in leaves(get_args(returned)[0])} | more
    return leaves(returned)


class Offered:
    """What the OpenAPI document says of an operation."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    def operation(self, name: str) -> Mapping[str, Any] | None:
        method, _, path = name.partition(" ")
        found: Mapping[str, Any] | None = self._document["paths"].get(path, {}).get(method.lower())
        return found

    def takes(self, operation: Mapping[str, Any], way: tuple[str, ...]) -> bool:
        if any(given["name"] == way[0] for given in operation.get("parameters", ())):
            return True
        for kind, content in operation.get("requestBody", {}).get("content", {}).items():
            form = kind == "multipart/form-data"
            flat = (way[0] + "".join(f"[{name}]" for name in way[1:]),) if form else way
            if self._has(content["schema"], flat):
                return True
        return False

    def answers(self, operation: Mapping[str, Any], way: tuple[str, ...]) -> bool:
        contents = operation["responses"]["200"]["content"]
        return way == () or self._has(contents["application/json"]["schema"], way)

    def _has(self, schema: Mapping[str, Any], way: tuple[str, ...]) -> bool:
        if not way:
            return True
        if "$ref" in schema:
            return self._has(self._document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], way)
        inner = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
        if "items" in schema:
            inner.append(schema["items"])
        if way[0] in schema.get("properties", {}):
            return self._has(schema["properties"][way[0]], way[1:])
        return any(self._has(each, way) for each in inner)


@functools.cache
def counted() -> dict[str, Count]:
    offered = Offered(create_app(cast(ApiServices, None)).openapi())
    client = openai.OpenAI(api_key="-", base_url="http://127.0.0.1:9/v1")
    counts = {resource: Count() for resource in METHODS}
    for resource, methods_ in METHODS.items():
        for name, operation_name in methods_.items():
            method: Any = client
            for part in name.split("."):
                method = getattr(method, part)
            _count(counts[resource], name, inspect.unwrap(method), offered, offered.operation(operation_name))
    client.close()
    return counts


def _count(count: Count, name: str, method: Any, offered: Offered, operation: Mapping[str, Any] | None) -> None:
    hints = get_type_hints(method)
    for parameter in set(inspect.signature(method).parameters) - OWN:
        for way in sorted(leaves(hints[parameter]) or {()}):
            told = ".".join((parameter, *way))
            count.add(f"{name}({told})", operation is not None and offered.takes(operation, (parameter, *way)))
    for way in sorted(answered(hints["return"])):
        told = ".".join(way) or "bytes"
        count.add(f"{name} → {told}", operation is not None and offered.answers(operation, way))


def table() -> str:
    lines = ["| resource | parameters and fields | offered | missing |", "| --- | --- | --- | --- |"]
    for resource, count in counted().items():
        total = count.there + len(count.missing)
        missing = "everything" if not count.there else ", ".join(f"`{name}`" for name in sorted(count.missing)) or "nothing"
        lines.append(f"| {resource} | {total} | {count.share:.1f} % | {missing} |")
    return "\n".join([f"Counted against the types of `openai` {_series()}.", "", *lines])


def _series() -> str:
    return ".".join(openai.__version__.split(".")[:2])


def page_with_table(page: str) -> str:
    head, _, rest = page.partition(BEGIN)
    return f"{head}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page_with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
