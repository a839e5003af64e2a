"""The programs and commands of docs/server.md and the README's server lines, against a server."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.helpers import leave_out_built_in_tasks
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


@pytest.mark.parametrize(
    ("page", "shown"), [(README, '"cat, cow, wolf"'), (DOCS / "search.md", '"candidates":8')]
)
def test_the_command_of_a_page(server, page, shown):
    (block,) = [code for *_, code in code_blocks("sh", [page]) if "curl " in code]
    command = block[block.index("curl ") :].replace("\\\n", "")  # to the end of its block
    words = shlex.split(command.replace(ADDRESS, server.url))
    done = subprocess.run([*words, "-sS"], capture_output=True, text=True, timeout=PATIENCE)
    assert shown in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "metric", "least"), [("dlm_math", "exact_match", 0.75), ("dlm_choice", "acc", 0.5)]
)
def test_the_harness_commands(server, monkeypatch, capsys, task, metric, least):
    """In this process, which other tests share the imports with."""
    command_line = pytest.importorskip("lm_eval.__main__", reason="needs lm-eval: '.[harness]'")
    (command,) = (line for line in lines("lm-eval") if f"--tasks {task} " in line)
    monkeypatch.setattr("sys.argv", shlex.split(command.replace(ADDRESS, server.url)))
    monkeypatch.chdir(ROOT)
    leave_out_built_in_tasks(monkeypatch)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    command_line.cli_evaluate()
    shown = capsys.readouterr().out
    row = rf"^\|{task}.*\|{metric}\b.*?\|\s*([01](?:\.\d+)?)\|"
    share = re.search(row, shown, re.M)
    assert float(share[1]) >= least, shown


def test_there_are_programs():
    assert len(programs()) >= 3
    assert len(lines("lm-eval")) == 2
