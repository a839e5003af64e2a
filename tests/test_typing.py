"""Types of the public face: one prompt gives one answer, a list of prompts a list."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = """
from typing import assert_type

import dlm
from dlm import Generation

engine, twin = dlm.load("tiny"), dlm.load_causal("tiny-ar")
ids: list[int] = [1, 2]
texts: list[str] = ["a", "b"]
chat: list[dict[str, str]] = [{"role": "user", "content": "a"}]

assert_type(engine.generate("a"), Generation)
assert_type(engine.generate(ids, n=2), Generation)
assert_type(engine.generate((1, 2)), Generation)
assert_type(engine.generate(chat), Generation)
assert_type(engine.generate(texts), list[Generation])
assert_type(engine.generate(["a", "b"], max_new_tokens=3), list[Generation])
assert_type(engine.generate([ids, ids]), list[Generation])
assert_type(engine.generate([chat]), list[Generation])
assert_type(engine.generate(["a", chat, ids]), list[Generation])
assert_type(twin.generate("a"), Generation)
assert_type(twin.generate([ids]), list[Generation])
assert_type([*engine.map(texts)], list[Generation])
assert_type([*engine.submit("a").deltas()], list[str])
engine.generate(5)  # type: ignore[call-overload]
engine.generate([1.5])  # type: ignore[arg-type]


async def main(served: dlm.AsyncEngine) -> None:
    assert_type(await served.generate("a"), Generation)
    assert_type(await served.submit("a"), Generation)
    assert_type([delta async for delta in served.submit("a").deltas()], list[str])
    assert_type(await served.stream("a").result(), Generation)
"""


@pytest.mark.slow
def test_generate_is_typed(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "program.py").write_text(PROGRAM)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(tmp_path / "program.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
