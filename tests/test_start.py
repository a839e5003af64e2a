"""A command starts without what it does not need: modules are counted, as time is the machine's."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from dlm.model.config_reader import read_spec
from dlm.model.decoder import Decoder
from dlm.model.loading import parameter_count
from tests.helpers import tiny_spec
from tests.model.published import LLADA2_MINI, LLADA_8B, SDAR_4B

ROOT = Path(__file__).parents[1]

# Each takes a tenth of a second or more, and an answer on the CPU needs none.
HEAVY = frozenset(
    {"torch._dynamo", "torch._inductor", "torch.distributed.tensor", "torch.nn.attention.varlen"}
    | {"sympy", "scipy", "sklearn", "pandas", "pyarrow", "matplotlib", "datasets", "accelerate"}
    | {"transformers.modeling_utils", "transformers.models.auto.modeling_auto", "sentencepiece"}
    | {"fastapi", "openai", "lm_eval", "math_verify"}
)

TOLD = """
import json, sys
import torch
by_torch = set(sys.modules)
from dlm.cli import run
codes = [run(arguments) for arguments in {commands!r}]
print(json.dumps([codes, sorted(sys.modules.keys() - by_torch)]))
"""


def told(commands):
    """Exit codes of commands, and the modules that they import beyond those of `import torch`."""
    ran = subprocess.run(
        [sys.executable, "-c", TOLD.format(commands=[line.split() for line in commands])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(ran.stdout.splitlines()[-1])


def test_commands_import_no_more_of_torch_than_torch_does():
    codes, modules = told(
        [
            "generate hello --quiet",
            "generate hello --unmask klass --cache dual --temperature 1",
            "generate hello --model tiny-block --json",
            "info tiny",
        ]
    )
    of_torch = [name for name in modules if name.startswith("torch.")]
    assert (codes, HEAVY & set(modules)) == ([0] * 4, set())
    assert len(of_torch) <= 3, of_torch


@pytest.mark.parametrize("name", sorted(name for name in HEAVY if "." in name))
def test_what_is_called_heavy_exists(name):
    """A module that was renamed would be looked for in vain."""
    assert find_spec(name)


@pytest.mark.parametrize(
    "config", [LLADA_8B, SDAR_4B, LLADA2_MINI], ids=["full", "block", "experts"]
)
def test_a_decoder_without_memory_draws_no_normal_numbers(config, monkeypatch):
    """On the meta device torch draws them by code whose import takes a second."""
    drawn = []
    for function in ("normal_", "trunc_normal_"):
        monkeypatch.setattr(f"torch.nn.init.{function}", lambda *a, **k: drawn.append(a))
    assert parameter_count(read_spec(config, tokens={"<|mask|>": 1})) > 1e8
    assert drawn == []


def test_a_decoder_with_memory_draws_its_embedding():
    assert 0.9 < Decoder(tiny_spec(vocab_size=2048)).embedding.weight.std() < 1.1
