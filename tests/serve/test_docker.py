"""The Dockerfile, the compose file and the files of a build: promises, checked without a daemon.

Whether an image builds is not tested here.
"""

import ast
import fnmatch
import json
import re
import shlex
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from dlm.cli.app import app
from dlm.serve.settings import ServerSettings

ROOT = Path(__file__).parents[2]
USUAL = ServerSettings()
KNOWN = {
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "RUN",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
}


def instructions(text):
    """The stages of a Dockerfile: name -> its (instruction, arguments); "" comes before all."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    stages, name = {"": []}, ""
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        assert word in KNOWN, line
        if word == "FROM":
            _, name = rest.split(" AS ")
            stages[name] = []
        stages[name].append((word, rest.strip()))
    return stages


STAGES = instructions((ROOT / "Dockerfile").read_text("utf-8"))


def of_target(target):
    """All instructions of a stage and of those that it is made from, the first ones first."""
    base = STAGES[target][0][1].split(" AS ")[0]
    return (of_target(base) if base in STAGES else []) + STAGES[target]


def last(target, word):
    """The arguments of the instruction of a target that counts."""
    return [rest for found, rest in of_target(target) if found == word][-1]


def ignored(path):
    """True if .dockerignore keeps a path out of the build; the last rule that matches counts."""
    out = False
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        rule = line.strip()
        if not rule or rule.startswith("#"):
            continue
        keeps, pattern = rule.startswith("!"), rule.removeprefix("!").rstrip("/")
        parts = path.split("/")
        above = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
        deep = pattern.removeprefix("**/")
        if any(
            fnmatch.fnmatchcase(one, pattern)
            or (deep != pattern and fnmatch.fnmatchcase(one.rpartition("/")[2], deep))
            for one in above
        ):
            out = not keeps
    return out


def kept_files():
    """Every file that git keeps."""
    command = ["git", "ls-files", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not in a clone of git")
    return done.stdout.split("\0")[:-1]


@pytest.fixture(params=["cpu", "cuda"])
def target(request):
    return request.param


def test_both_targets_are_there_and_cpu_is_the_default():
    assert list(STAGES)[-1] == "cpu"
    assert {"cpu", "cuda"} <= STAGES.keys()


def test_it_runs_as_a_user_without_rights(target):
    assert last(target, "USER") == "1001:1001"
    made = [rest for word, rest in of_target(target) if word == "RUN"]
    assert any("useradd --uid 1001 " in rest for rest in made)
    words = [word for word, _ in of_target(target)]
    assert "RUN" not in words[words.index("USER") :]


def test_signals_reach_the_server(target):
    assert json.loads(last(target, "ENTRYPOINT")) == ["dlm", "serve"]
    assert last(target, "STOPSIGNAL") == "SIGTERM"


def test_the_default_arguments_are_options_of_the_command(target):
    arguments = json.loads(last(target, "CMD"))
    parsed = get_command(app).commands["serve"].make_context("serve", arguments).params
    assert parsed["host"] == "0.0.0.0"
    assert last(target, "EXPOSE") == str(USUAL.port)


def test_it_does_not_start_wide_open(target):
    """In the image as it is, without a key."""
    arguments = json.loads(last(target, "ENTRYPOINT"))[1:] + json.loads(last(target, "CMD"))
    done = subprocess.run(
        [sys.executable, "-m", "dlm", *arguments],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "DLM_API_KEY" in done.stderr


def test_what_stays_is_in_a_volume_and_output_is_not_held_back(target):
    settings = " ".join(rest for word, rest in of_target(target) if word == "ENV")
    assert "PYTHONUNBUFFERED=1" in settings.split()
    assert f"HF_HOME={last(target, 'VOLUME')}" in settings.split()
    assert "DLM_API_KEY" not in settings
    assert "org.opencontainers.image.licenses" in last(target, "LABEL")


def test_every_version_is_pinned(target):
    source = next(rest.split()[0] for word, rest in STAGES[target] if word == "COPY")
    assert source == f"--from=build-{target}"
    installed = [rest for word, rest in of_target(f"build-{target}") if word == "RUN"]
    installed = [rest for rest in installed if "pip install" in rest]
    assert len(installed) == 2
    assert all("--constraint constraints.txt" in rest for rest in installed)
    assert "torch" in installed[0]
    assert shlex.split(installed[1])[-1] == ".[serve]"
    settings = " ".join(rest for word, rest in of_target(f"build-{target}") if word == "ENV")
    assert "PIP_CONSTRAINT=/src/constraints.txt" in settings  # of what builds, too
    for stage in STAGES.values():
        for word, rest in stage:
            if word == "FROM" and rest.split()[0] not in STAGES:
                assert rest.startswith("python:${PYTHON_VERSION}-slim AS ")
    assert STAGES[""] == [("ARG", "PYTHON_VERSION=3.11")]


def test_what_is_copied_is_there_and_not_ignored():
    files, copied = kept_files(), set()
    for stage in STAGES.values():
        for word, rest in stage:
            if word != "COPY" or rest.startswith("--from="):
                continue
            *sources, _ = rest.split()
            for source in sources:
                below = [f for f in files if f == source or f.startswith(f"{source}/")]
                assert below, source
                assert not [f for f in below if ignored(f)]
                copied |= set(below)
    assert "dlm/model/bundled/tiny/config.json" in copied
    assert not {f for f in files if not ignored(f)} - copied  # nothing else is sent


def test_what_lies_around_stays_outside_of_the_build():
    for path in (
        ".git/config",
        ".venv/bin/python",
        "tests/conftest.py",
        "runs/secret.jsonl",
        ".env",
        "server.yaml",
        "dlm/__pycache__/app.pyc",
        "dlm/serve/__pycache__/app.cpython-311.pyc",
    ):
        assert ignored(path), path
    assert not ignored("dlm/serve/page/app.js")


# health


class Health(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self):
        assert self.path == "/health"
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (None, 1)])
def test_the_health_check_asks_the_server_itself(target, status, code):
    """It is run as written, but for the port; a proxy of the environment is left aside."""
    _, _, command = last(target, "HEALTHCHECK").partition(" CMD ")
    program, flag, source = json.loads(command)
    assert (program, flag) == ("python", "-c")
    ast.parse(source)
    handler = type("Now", (Health,), {"status": status})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        port = server.server_port
        if status is None:
            server.server_close()
        else:
            threading.Thread(target=server.handle_request, daemon=True).start()
        assert f"127.0.0.1:{USUAL.port}/health" in source
        done = subprocess.run(
            [sys.executable, "-c", source.replace(f":{USUAL.port}/", f":{port}/")],
            env={"http_proxy": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"},
            capture_output=True,
            check=False,
        )
    assert done.returncode == code


# compose


def test_the_compose_file_guards_the_server():
    services = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]
    server = services["dlm"]
    assert server["build"] == {"context": ".", "target": "cpu"}
    assert server["environment"]["DLM_API_KEY"].startswith("${DLM_API_KEY:?")
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    command = [re.sub(r"\$\{\w+:-(\w+)\}", r"\1", word) for word in server["command"]]
    parsed = get_command(app).commands["serve"].make_context("serve", command).params
    assert (parsed["host"], parsed["model"]) == ("0.0.0.0", "tiny")
    assert int(server["stop_grace_period"].removesuffix("s")) > USUAL.drain
    image = services["prometheus"]["image"]
    assert re.fullmatch(r"prom/prometheus:v\d+\.\d+\.\d+", image)


def test_prometheus_asks_the_server_of_the_compose_file():
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
    (source,) = (
        volume.split(":")[0]
        for volume in compose["services"]["prometheus"]["volumes"]
        if volume.startswith("./")
    )
    asks = yaml.safe_load((ROOT / source).read_text("utf-8"))["scrape_configs"]
    (target,) = (
        name for job in asks for group in job["static_configs"] for name in group["targets"]
    )
    name, _, port = target.partition(":")
    assert name in compose["services"]
    assert int(port) == USUAL.port
