"""Requests that no client should send, each with the statuses that may answer it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

CHAT, TEXT, TOKENIZE = "/v1/chat/completions", "/v1/completions", "/tokenize"
POSTS = (
    CHAT,
    TEXT,
    "/v1/fim/completions",
    "/v1/responses",
    TOKENIZE,
    "/detokenize",
    "/v1/decisions",
    "/v1/systemone",
)
MIB = 2**20
SUM = [{"role": "user", "content": "12+5=?"}]
CODE = "os:system"
PARTS = ("blocks", "unmask", "edit", "guide", "stop", "cache")

Case = tuple[str, bytes, set[int]]
"""Path, body, statuses."""


def talk(**fields: Any) -> bytes:
    return json.dumps({"messages": SUM, "max_tokens": 4} | fields).encode()


def own(**options: Any) -> bytes:
    return talk(dlm=options)


def no_json() -> Iterator[Case]:
    """Bodies that are no JSON, or no object."""
    bodies = [
        b"",
        b" ",
        b"{",
        b"}",
        b'{"messages": [',
        b'{"messages"',
        b"nonsense",
        b"{'messages': []}",
        b'{"a": 1,}',
        b'{"a": 01}',
        b'{"a": "\x01"}',
        b'{"a": "\n"}',
        b'\xef\xbb\xbf{"a": 1}',
        b"\xff\xfe{}",
        b'{"messages": "\xff"}',
        b'{"messages": "\xc3"}',
        b'{"messages": "\xed\xa0\x80"}',
        b"\x00" * 1000,
        "{}".encode("utf-16"),
        "{}".encode("utf-32"),
        b"null",
        b"true",
        b"5",
        b"[]",
        b'"text"',
        b"[" * 100_000,
        b"[" * 900 + b"]" * 900,
        b'{"a":' * 100_000,
        b'{"a":' * 500 + b"1" + b"}" * 500,
        b"9" * 5000,
        b"-" + b"9" * 1_000_000,
        b'{"n": ' + b"9" * 5000 + b"}",
        b'{"temperature": 1e' + b"9" * 5000 + b"}",
        b"1" * (3 * MIB),
        b'"' + b"a" * (3 * MIB),
        b"[" + b"1," * MIB + b"1]",
        b"[" + b"[]," * MIB + b"1]",
        b"{" + b",".join(b'"%d":1' % n for n in range(200_000)) + b"}",
    ]
    for path in POSTS:
        for body in bodies:
            yield path, body, {400}
        yield path, b"{}", {400}
        yield path, b" " * (5 * MIB), {413}


NUMBERS = (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"1e400")
FIELDS = (
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "n",
    "max_tokens",
    "max_completion_tokens",
    "min_tokens",
    "logit_bias",
    "stop",
    "top_logprobs",
    "frequency_penalty",
    "metadata",
    "user",
    "dlm",
    "chat_template_kwargs",
)


def numbers() -> Iterator[Case]:
    """Numbers that are none, in every field, at any depth."""
    for number in NUMBERS:
        for field in FIELDS:
            for value in (number, b"[" + number + b"]", b'{"a": ' + number + b"}"):
                body = b'{"messages": [{"role": "user", "content": "a"}], "max_tokens": 2, '
                free = b"e" in number and field in ("metadata", "user", "chat_template_kwargs")
                allowed = {200, 400} if free else {400}  # JSON has numbers of any size
                yield CHAT, body + b'"' + field.encode() + b'": ' + value + b"}", allowed


def wrong_types() -> Iterator[Case]:
    """Values of other types and sizes in every field."""
    huge = 10**400
    for field in (*FIELDS, "messages", "model", "stream", "stream_options", "logprobs", "tools"):
        for value in (huge, -huge, "x" * MIB, ["x"] * 200_000, {"a": "b" * MIB}, [[[]]], -1, True):
            wrong = field in ("user", "metadata", "model", "stop", "chat_template_kwargs")
            wrong = wrong or (field in ("stream", "logprobs") and value is True)
            wrong = wrong or (field == "seed" and value == -1)
            wrong = wrong or (field == "top_k" and value == -1)
            if not wrong:
                yield CHAT, talk(**{field: value}), {400}
            else:
                yield CHAT, talk(**{field: value}), {200, 400, 404}


def surrogates() -> Iterator[Case]:
    """Halves of characters, escaped, wherever text is."""
    half = b'"\\ud800"'
    messages = b'{"messages": [{"role": "user", "content": %s}]}' % half
    yield CHAT, messages, {400}
    yield CHAT, b'{"messages": [{"role": %s, "content": "a"}]}' % half, {400}
    yield TEXT, b'{"prompt": %s}' % half, {400}
    yield TEXT, b'{"prompt": %s, "echo": true, "max_tokens": 2}' % half, {400}
    yield TEXT, b'{"prompt": ["a", %s], "max_tokens": 2}' % half, {400}
    yield TEXT, b'{"prompt": "a", "suffix": %s, "max_tokens": 2}' % half, {400}
    yield "/v1/fim/completions", b'{"prompt": %s, "suffix": "a", "max_tokens": 2}' % half, {400}
    yield TOKENIZE, b'{"prompt": %s}' % half, {400}
    yield TOKENIZE, b'{"messages": [{"role": "user", "content": %s}]}' % half, {400}
    yield "/v1/responses", b'{"input": %s}' % half, {400}
    yield "/v1/responses", b'{"input": "a", "instructions": %s}' % half, {400}
    yield "/v1/responses", b'{"input": "a", "metadata": {"a": %s}}' % half, {400}
    yield "/v1/responses", b'{"input": "a", "metadata": {%s: "a"}}' % half, {400}
    talks = b'{"messages": [{"role": "user", "content": "a"}], "max_tokens": 2, %s}'
    for field in (b"model", b"stop", b"reasoning_effort", b"tool_choice"):
        yield CHAT, talks % (b'"%s": %s' % (field, half)), {400, 404}
    yield CHAT, talks % (b'"stop": ["a", %s]' % half), {400}
    yield CHAT, talks % (b'"logit_bias": {%s: 1}' % half), {400}
    yield CHAT, talks % (b'"user": %s' % half), {200, 400}
    yield CHAT, talks % (b"%s: 1" % half), {200, 400}
    for name in (b"unmask", b"preset", b"infill", b"stop", b"guide"):
        yield CHAT, talks % (b'"dlm": {"%s": %s}' % (name, half)), {400}
    yield CHAT, talks % (b'"dlm": {%s: 1}' % half), {400}
    yield CHAT, talks % (b'"chat_template_kwargs": {"a": %s}' % half), {200, 400}


def parts() -> Iterator[Case]:
    """Code by its path, numbers beyond all measure, and expressions in every part option."""
    specs = [
        CODE,
        f"{CODE}('true')",
        "builtins:eval('1')",
        "dlm.unmasking.unmask:TopK",
        "subprocess:Popen(['true'])",
        "os.path:join",
        " os:system ",
        "os : system",
        "__import__('os').system('true')",
        "topk(__import__('os'))",
        "threshold(10**10**10)",
        "threshold(9" + "9" * 10_000 + ")",
        "threshold(1e999)",
        "threshold(nan)",
        "threshold(" + "(" * 5000 + ")" * 5000 + ")",
        "threshold(" + "-" * 5000 + "1)",
        "threshold('" + "a" * MIB + "')",
        "threshold(" + "1," * 100_000 + ")",
        "threshold(**{})",
        "threshold(*[1])",
        "threshold(lambda: 1)",
        "threshold(threshold=threshold)",
        "fixed(-1)",
        "fixed(99999999999999999999)",
        "fixed(1e10)",
        "topk(steps=10**18)",
        "forbid([" + "1," * 50_000 + "])",
        "bias([(" + "9" * 30 + ", 1.0)])",
        "cfg(1e308)",
        "max_nfe(-5)",
        "",
        "(",
        "a" * MIB,
        "\x00",
        5,
        1.5,
        True,
        {"a": 1},
        [[["topk"]]],
        ["topk"] * 5000,
        [None],
    ]
    for option in PARTS:
        for spec in specs:
            allowed = {400}
            if isinstance(spec, str) and option == "stop" and ("(" in spec or " :" in spec):
                allowed = {200, 400}  # other strings there are texts
            if isinstance(spec, str) and option == "stop" and ":" not in spec:
                allowed = {200, 400}  # other strings there are texts
            if isinstance(spec, str) and spec.startswith(("fixed", "forbid([", "max_nfe", "cfg")):
                allowed = {200, 400}
            yield CHAT, own(**{option: spec}), allowed


def others() -> Iterator[Case]:
    """Templates, lengths, models, ids and keys."""
    for infill in (
        "[[mask:99999999999999999999]]",
        "[[mask:0]]",
        "[[mask:-1]]",
        "[[mask:1]]" * 100_000,
        "[[" * 100_000,
        "[[mask:2000]]",
        [None] * 100_000,
        [10**30],
        [1.5],
        {"99999999999": "a"},
        {"-1": "a"},
        {"a": "b"},
        {"1": ["a", [None]]},
        {},
        [],
        "",
    ):
        yield CHAT, own(infill=infill), {200, 400} if not infill else {400}
    for steps in (-1, 0, 10**30, 1.5, "1", True, None):
        yield CHAT, own(unmask="topk", steps=steps), {200, 400} if steps is None else {400}
    for model in ("../../etc/passwd", "a" * 256, "a" * 5000, "\x00", "tiny\n", "%00", " tiny"):
        yield CHAT, talk(model=model), {400, 404}
    for name in ("__class__", "__init__", "trusted", "self", "trace", "seed", "n", "é", "a" * MIB):
        yield CHAT, own(**{name: 1}), {400}
    yield CHAT, own(**{f"k{n}": n for n in range(50_000)}), {400}
    yield CHAT, talk(messages=SUM * 2000), {400}
    yield CHAT, talk(messages=[{"role": "user", "content": "a " * MIB}]), {400}
    yield CHAT, talk(messages=[{"role": "user", "content": "é" * (MIB // 2)}]), {400}
    parts = [{"type": "text", "text": "a"}] * 5000
    yield CHAT, talk(messages=[{"role": "user", "content": parts}]), {400}
    yield CHAT, talk(messages=[{"role": "user", "content": ""}]), {200, 400}
    yield CHAT, talk(stop=["a" * 100_000]), {400}
    yield CHAT, talk(logit_bias={str(n): 1 for n in range(50_000)}), {400}
    yield CHAT, talk(logit_bias={"٣": 1}), {400}
    yield CHAT, talk(logit_bias={"1" * 5000: 1}), {400}
    yield CHAT, talk(max_tokens=2**31 - 1), {400}
    yield CHAT, talk(max_tokens=2**63), {400}
    yield CHAT, b'{"messages": [], "messages": [{"role": "user", "content": "a"}]}', {200, 400}
    for kwargs in ({"messages": []}, {"bos_token": "x" * MIB}, {"add_generation_prompt": 5}):
        yield CHAT, talk(chat_template_kwargs=kwargs), {200, 400}
    yield CHAT, own(infill={"1": 5}), {200}
    yield CHAT, own(stop="a" * 10_000), {400}
    yield CHAT, own(stop=["a b c"] * 5000), {400}
    for ids in ([10**30], [-1], [1.5], ["a"], [None], [[1]], [5] * 70_000, [5] * 5000, [True]):
        yield TEXT, json.dumps({"prompt": ids, "max_tokens": 2}).encode(), {200, 400}
        yield "/detokenize", json.dumps({"tokens": ids}).encode(), {200, 400}
    yield TEXT, json.dumps({"prompt": [[5]] * 65, "max_tokens": 2}).encode(), {400}
    yield TEXT, json.dumps({"prompt": [4], "max_tokens": 2}).encode(), {200, 400}
    yield TEXT, json.dumps({"prompt": "a", "n": 16, "max_tokens": 10**9}).encode(), {400}
    yield TEXT, json.dumps({"prompt": ["a"] * 64, "n": 16, "max_tokens": 2}).encode(), {400, 429}
    asks = [{"type": "predicate", "instructions": "x"}]
    many = [{"value": f"{n}", "description": "x " * 5000} for n in range(200)]
    for given, questions in (
        ("a " * (MIB // 2), asks),
        ("a", [{"type": "predicate", "instructions": "b " * (MIB // 2)}]),
        ("a", [{"type": "choice", "instructions": "x", "choices": many}]),
        ("a", asks * 401),
    ):
        body = {"input": given, "questions": questions}
        yield "/v1/decisions", json.dumps(body).encode(), {400}
    state = {"state": ["b"] * 100_000, "questions": {"q": {"type": "noul", "instructions": "x"}}}
    yield "/v1/systemone", json.dumps(state).encode(), {400}
    yield TOKENIZE, json.dumps({"prompt": "a b " * (MIB // 2)}).encode(), {200, 400}
    yield TOKENIZE, json.dumps({"prompt": "a" * (3 * MIB)}).encode(), {200, 400}


def cases() -> list[Case]:
    """All of them."""
    found: list[Case] = []
    for family in (no_json, numbers, wrong_types, surrogates, parts, others):
        found += family()
    return found
