"""The interface as lines to be compared: operations with what they take and answer, then models by direction.

    operation create_document: POST /v1/documents ingest
      query.dry_run: optional boolean
      body application/json: required DocumentIn
      answer 202 application/json: SubmittedOut
      refuses: 401 402 403
    input DocumentIn
      collection: optional string
    output SubmittedOut
      document: always DocumentOut

A type is its alternatives, each with its bounds in brackets. Words for people (descriptions, examples, titles) are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from api.routing import SCOPE_KEY

Schema = Mapping[str, Any]
#: section → name → value; the section's own value is under the empty name.
Lines = dict[str, dict[str, str]]
LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
EXACT = ("format", "pattern", "multipleOf", "uniqueItems")


def lines_of(document: Schema) -> Lines:
    found: Lines = {}
    models: dict[str, list[tuple[str, Schema]]] = {"input": [], "output": []}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            name = operation["operationId"]
            section = found[f"operation {name}"] = {"": f"{method.upper()} {path} {operation[SCOPE_KEY]}"}
            for given in operation.get("parameters", ()):
                section[f"{given['in']}.{given['name']}"] = _taken(given["schema"], given.get("required", False))
            body = operation.get("requestBody", {})
            for media, content in body.get("content", {}).items():
                section[f"body {media}"] = _taken(_named(content["schema"], name, models["input"]), body["required"])
            section |= _answers(document, operation, models["output"])
    for direction, roots in models.items():
        for model, schema in sorted(_reached(document, roots)):
            found[f"{direction} {model}"] = dict(_fields(schema, direction))
    return found


def written(lines: Lines) -> str:
    parts = []
    for section, entries in lines.items():
        parts.append(f"{section}: {entries['']}" if "" in entries else section)
        parts += [f"  {name}: {value}" for name, value in entries.items() if name]
    return "\n".join(parts) + "\n"


def read(text: str) -> Lines:
    found: Lines = {}
    section: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.strip().partition(": ")
        if line.startswith("  "):
            section[name] = value
        else:
            section = found[name] = {"": value} if value else {}
    return found


def _answers(document: Schema, operation: Schema, models: list[tuple[str, Schema]]) -> Iterator[tuple[str, str]]:
    refused = []
    for status, answer in operation["responses"].items():
        if "$ref" in answer:
            refused.append(status)
            answer = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
        for media, content in answer.get("content", {"": {}}).items():
            type_ = type_of(_named(content.get("schema", {}), f"{operation['operationId']} {status}", models))
            if status not in refused:
                yield f"answer {status} {media}".rstrip(), type_
    yield "refuses", " ".join(refused) or "nothing"


def _taken(schema: Schema, required: bool) -> str:
    return f"{'required' if required else 'optional'} {type_of(schema)}"


def _named(schema: Schema, name: str, models: list[tuple[str, Schema]]) -> Schema:
    """A schema that the document keeps in its place gets a name, and is a model like the others."""
    if "properties" in schema:
        name = schema.get("title") or f"{name} form"
        models.append((name, schema))
        return {"$ref": f"/{name}"}
    models.append(("", schema))
    return schema


def _reached(document: Schema, roots: list[tuple[str, Schema]]) -> Iterator[tuple[str, Schema]]:
    """Every model that these name, and those."""
    known = document["components"]["schemas"]
    waiting, seen = [*roots], set[str]()
    while waiting:
        name, schema = waiting.pop()
        if name in seen:
            continue
        if name:
            seen.add(name)
            yield name, schema
        text = json.dumps(schema)
        named = (part.partition('"')[0] for part in text.split('"#/components/schemas/')[1:])
        waiting += [(each, known[each]) for each in named if each not in seen]


def _fields(schema: Schema, direction: str) -> Iterator[tuple[str, str]]:
    if "properties" not in schema:
        yield "", type_of(schema)
    needed, other = ("required", "optional") if direction == "input" else ("always", "sometimes")
    for name, field in schema.get("properties", {}).items():
        yield name, f"{needed if name in schema.get('required', ()) else other} {type_of(field)}"


def type_of(schema: Schema, between: str = " | ") -> str:
    """Alternatives in an order of their own, so that theirs in the document does not matter."""
    return between.join(sorted(set(_alternatives(schema))))


def _alternatives(schema: Schema) -> Iterator[str]:
    for option in schema.get("anyOf", schema.get("oneOf", ())):
        yield from _alternatives(option)
    if "anyOf" in schema or "oneOf" in schema:
        return
    if "$ref" in schema:
        yield str(schema["$ref"]).rpartition("/")[2]
    elif "enum" in schema or "const" in schema:
        yield from (json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    else:
        yield _kind(schema) + _bounds(schema)


def _kind(schema: Schema) -> str:
    if schema.get("type") == "array":
        return f"list<{type_of(schema.get('items', {}), '|')}>"
    values = schema.get("additionalProperties")
    if isinstance(values, Mapping) and values:
        return f"map<{type_of(values, '|')}>"
    return str(schema.get("type", "any"))


def _bounds(schema: Schema) -> str:
    # OpenAPI writes bounds of integers as floats
    told = [f"{name}={_number(schema[name])}" for name in (*LEAST, *MOST, *EXACT) if name in schema]
    return f"[{';'.join(told)}]" if told else ""


def _number(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value
