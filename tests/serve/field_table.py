"""The table of request fields in docs/server.md, made from the schemas."""

from dlm.serve.fields import Ignored, Neutral, Sampling
from dlm.serve.schemas import (
    ChatRequest,
    CompletionRequest,
    FimRequest,
    ResponsesRequest,
)

MOST_SHOWN = 4096
"""Longer texts are as good as unbounded: the bound of the body comes first."""
ENDPOINTS = {
    "chat": ChatRequest,
    "completions": CompletionRequest,
    "fim": FimRequest,
    "responses": ResponsesRequest,
}


def fields_table():
    """One row a field, or several where endpoints differ."""
    lines = ["| field | endpoints | values | rule |", "| --- | --- | --- | --- |"]
    names = dict.fromkeys(
        n for schema in (Sampling, *ENDPOINTS.values()) for n in fields_of(schema)
    )
    for name in names:
        rows = {}
        for endpoint, schema in ENDPOINTS.items():
            if name in fields_of(schema):
                rows.setdefault(facts(schema, name), []).append(endpoint)
        for (values, rule), where in rows.items():
            shown = "all" if len(where) == len(ENDPOINTS) else ", ".join(where)
            lines.append(f"| `{name}` | {shown} | {values} | {rule} |")
    return "\n" + "\n".join(lines) + "\n\n"


def fields_of(schema):
    return schema.model_fields


def facts(schema, name):
    """The values and the rule of a field."""
    field = schema.model_fields[name]
    for mark in field.metadata:
        if isinstance(mark, Neutral):
            taken = ", ".join(f"`{spelled(value)}`" for value in mark.values) or "null"
            return f"{taken} alone", f"else refused: it {mark.why}"
        if isinstance(mark, Ignored):
            return "any", f"without effect: {mark.why}"
    shape = schema.model_json_schema()["properties"][name]
    needed = " (required)" if field.is_required() else ""
    return values_of(shape) + needed, field.description or ""


def spelled(value):
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def values_of(shape):
    """The values of a JSON schema in words."""
    kinds = [one for one in shape.get("anyOf", [shape]) if one.get("type") != "null"]
    return ", or ".join(dict.fromkeys(map(kind_of, kinds)))


def kind_of(shape):
    if "$ref" in shape:
        return "object"
    if "enum" in shape:
        return ", ".join(f"`{value}`" for value in shape["enum"])
    kind = shape["type"]
    if kind == "array":
        inner = shape.get("items", {})
        most = f"at most {shape['maxItems']} " if "maxItems" in shape else ""
        if "type" not in inner and "anyOf" not in inner:
            return f"list of {most}items" if most else "list"
        return f"list of {most}{plural(values_of(inner))}"
    if kind == "string" and shape.get("maxLength", MOST_SHOWN) < MOST_SHOWN:
        return f"string of at most {shape['maxLength']} characters"
    if kind == "object" and "maxProperties" in shape:
        return f"object of at most {shape['maxProperties']} fields"
    low = shape.get("minimum", shape.get("exclusiveMinimum"))
    high = shape.get("maximum", shape.get("exclusiveMaximum"))
    if kind not in ("integer", "number") or low is None:
        return kind
    if high is None or abs(high) >= 2**31 - 1:
        return kind if abs(low) > 2**31 else f"{kind} of at least {low:g}"
    return f"{kind}, {'above ' if 'exclusiveMinimum' in shape else ''}{low:g} to {high:g}"


def plural(words):
    """`list of integers` -> `lists of integers`, `string` -> `strings`."""
    first, space, rest = words.partition(" ")
    return f"{first}s{space}{rest}"
