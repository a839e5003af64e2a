"""The programs and commands of docs/server.md and the README's server lines, against a server."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serve.live import PATIENCE
from tests.test_readme import DOCS, README, SERVED, code_blocks

ROOT = Path(__file__).parents[2]
PAGE = DOCS / f"{SERVED}.md"
ADDRESS = "http://127.0.0.1:8000"


def programs():
    return [code for *_, code in code_blocks("python", [PAGE])]


def lines(program, page=PAGE):
    """The commands of a program, each on one line."""
    text = "".join(code for *_, code in code_blocks("sh", [page])).replace("\\\n", "")
    return [line for line in text.splitlines() if line.startswith(f"{program} ")]


@pytest.mark.parametrize("code", programs(), ids=lambda code: code.split()[1])
def test_programs_run(server, code, capsys):
    if "langchain" in code:
        pytest.importorskip("langchain_openai", reason="needs langchain-openai")
    assert ADDRESS in code
    exec(compile(code.replace(ADDRESS, server.url), PAGE.name, "exec"), {})
    assert capsys.readouterr().out.strip()


def test_the_command_of_the_readme(server):
    (command,) = lines("curl", README)
    words = shlex.split(command.replace(ADDRESS, server.url))
    done = subprocess.run([*words, "-sS"], capture_output=True, text=True, timeout=PATIENCE)
    assert '"cat, cow, wolf"' in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "metric", "least"), [("dlm_math", "exact_match", 0.75), ("dlm_choice", "acc", 0.5)]
)
def test_the_harness_commands(server, task, metric, least):
    pytest.importorskip("lm_eval", reason="needs lm-eval: pip install '.[harness]'")
    (command,) = (line for line in lines("lm-eval") if f"--tasks {task} " in line)
    words = shlex.split(command.replace(ADDRESS, server.url))[1:]
    ran = subprocess.run(
        [sys.executable, "-m", "lm_eval", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20 * PATIENCE,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    row = rf"^\|{task}.*\|{metric}\b.*?\|\s*([01](?:\.\d+)?)\|"
    share = re.search(row, ran.stdout, re.M)
    assert float(share[1]) >= least, ran.stdout


def test_there_are_programs():
    assert len(programs()) >= 3
    assert len(lines("lm-eval")) == 2
