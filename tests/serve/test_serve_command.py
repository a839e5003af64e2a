"""`dlm serve`: the real engine in a process, on a real socket; some start Python, as users do."""

import json
import os
import subprocess
import sys
import threading
import time

import httpx2
import pytest

from dlm.cli.app import run
from dlm.serve.server import listening_socket
from dlm.serve.settings import ServerSettings
from tests.serve.processes import PATIENCE, ROOT, running

LONG = {
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 600,
    "stream": True,
    "stream_options": {"include_usage": True},
    "dlm": {"unmask": "topk", "blocks": "fixed(8)", "guide": "forbid"},  # 600 forwards
}


@pytest.fixture
def client():
    with httpx2.Client(timeout=PATIENCE) as one:
        yield one


def chunks(lines):
    """The chunks of a stream; the last line that is no comment must end it."""
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    return list(map(json.loads, data))


def test_sigterm_in_the_middle_of_a_stream(client):
    """What runs ends as if nothing had been; new requests are told to come back later."""
    asked = LONG | {"max_tokens": 200}  # enough to tell and ask a few things meanwhile
    with running("serve", "--port", 0, "--drain", PATIENCE) as server:
        url = f"{server.url}/v1/chat/completions"
        with client.stream("POST", url, json=asked) as stream:
            lines = stream.iter_lines()
            first = [next(line for line in lines if line.startswith("data: "))]
            server.signal()
            server.logged("asked to stop")
            with httpx2.Client(timeout=PATIENCE) as other:
                assert other.get(f"{server.url}/ready").status_code == 503
                refused = other.post(url, json=asked)
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "draining"
            assert int(refused.headers["retry-after"]) > 0
            found = chunks([*first, *lines])
        assert found[-1]["usage"]["completion_tokens"] == 200
        assert [c["choices"][0]["finish_reason"] for c in found if c["choices"]][-1] == "length"
        code, err = server.ended()
    assert (code, "Traceback" in err) == (0, False)


def test_what_is_cut_off_is_told_so(client):
    """A stream by a last chunk, a plain request by its status."""
    with running("serve", "--port", 0, "--drain", 0.5, forked=True) as server:
        url = f"{server.url}/v1/chat/completions"
        whole: list[httpx2.Response] = []
        plain = {name: value for name, value in LONG.items() if not name.startswith("stream")}
        asker = threading.Thread(target=lambda: whole.append(client.post(url, json=plain)))
        with client.stream("POST", url, json=LONG) as stream:
            lines = stream.iter_lines()
            next(lines)
            asker.start()
            while client.get(f"{server.url}/load").json()["running"] < 2:
                time.sleep(0.05)
            server.signal()
            found = chunks(lines)
        asker.join(PATIENCE)
        code, err = server.ended()
    assert found[-1]["error"]["code"] == "draining"
    assert whole[0].status_code == 503
    assert whole[0].json()["error"]["code"] == "draining"
    assert code == 0
    assert "requests are cut off" in err
    assert "Traceback" not in err


def test_a_second_signal_does_not_wait(client):
    with running("serve", "--port", 0, forked=True) as server:
        url = f"{server.url}/v1/chat/completions"
        with client.stream("POST", url, json=LONG) as stream:
            next(stream.iter_lines())
            server.signal()
            server.logged("asked to stop")
            server.signal()
            assert server.ended()[0] == 143


def test_the_death_of_the_engine_ends_the_process(client):
    with running(module="tests.serve.dying_server", forked=True) as server:
        body = {name: LONG[name] for name in ("messages", "dlm")} | {"max_tokens": 100}
        answer = client.post(f"{server.url}/v1/chat/completions", json=body)
        assert answer.status_code == 500
        assert answer.json()["error"]["type"] == "server_error"
        code, err = server.ended()
    assert code == 1
    assert "the engine's thread has died" in err


def test_a_file_a_flag_and_the_environment(client, tmp_path):
    """Flags win over the file; a key of the environment guards, and no log shows it or a text."""
    path = tmp_path / "server.yaml"
    path.write_text(
        "model: tiny-block\nport: 1\nmodel-id: from-the-file\ndefaults: {seed: 7, unmask: leap}\n",
        "utf-8",
    )
    flags = ("--config", path, "--port", 0, "--unmask", "topk", "--log-level", "debug")
    with running("serve", *flags, environment={"DLM_API_KEY": "a-secret"}) as server:
        models = f"{server.url}/v1/models"
        assert client.get(models).status_code == 401
        client.headers["Authorization"] = "Bearer a-secret"
        assert [card["id"] for card in client.get(models).json()["data"]] == ["from-the-file"]
        told = client.get(f"{server.url}/v1/dlm/strategies").json()["defaults"]
        assert {"seed": "7", "unmask": "topk"}.items() <= told.items()
        body = {"model": "from-the-file", "prompt": "a private word", "max_tokens": 8}
        body["dlm"] = {"guide": "forbid"}  # eight tokens of text
        answer = client.post(f"{server.url}/v1/completions", json=body).json()
        assert answer["dlm"]["nfe"] >= answer["usage"]["completion_tokens"] == 8  # topk
        server.signal()
        code, err = server.ended()
    assert code == 0
    assert "a-secret" not in err
    assert "private" not in err
    line = next(line for line in err.splitlines() if "/v1/completions" in line)
    assert {"answer_tokens": 8, "status": 200}.items() <= json.loads(line).items()


def test_the_log_tells_of_loading_before_serving_and_of_prompts_when_asked_for(client):
    with running("serve", "--port", 0, "--device", "cpu", "--log-prompts", forked=True) as server:
        loading = server.logged("loading the model")
        serving = server.logged("serving")
        body = {"prompt": "a private word", "max_tokens": 4}
        client.post(f"{server.url}/v1/completions", json=body)
        assert server.logged("a request")["prompts"] == ["a private word"]
    assert {"model": "tiny", "device": "cpu", "dtype": "auto", "level": "info"}.items() <= (
        loading.items()
    )
    assert loading["time"] < serving["time"]


def test_flags_win_over_the_file_name_by_name(monkeypatch, tmp_path):
    """What loads the model, and its default options; the model itself is not needed for that."""
    path = tmp_path / "server.yaml"
    path.write_text(
        "model: file-model\ndtype: float32\nmask_id: 1\noverride: {shift: true, eos_ids: [2]}\n"
        "aux: {ar: a, judge: b}\nhost: 127.0.0.2\nmax_rows: 4\npage: false\n"
        "defaults: {block_length: 8, temperature: 0.5, stop: [eos]}\n",
        "utf-8",
    )
    seen = []
    monkeypatch.setattr("dlm.cli.serve._serve", lambda *given: seen.append(given))
    monkeypatch.setattr("dlm.cli.serve.leave_on_terminate", lambda: None)  # of this process
    flags = "--model flag-model --override mask_id=5 --override shift=false --aux ar=c"
    flags += " --max-rows 9 --blocks causal --max-new-tokens 7 --no-page"
    assert run(["serve", "--config", str(path), *flags.split()]) == 0
    ((sources, changes, helpers, settings),) = seen
    assert sources == {"model": "flag-model", "device": "auto", "dtype": "float32"}
    assert changes == {"mask_id": 5, "shift": False, "eos_ids": [2]}
    assert helpers == {"ar": "c", "judge": "b"}
    assert (settings.host, settings.max_rows, settings.page) == ("127.0.0.2", 9, False)
    assert settings.max_new_tokens == 7
    assert settings.defaults == {"blocks": "causal", "temperature": 0.5, "stop": ["eos"]}


def test_keys_come_from_the_first_place_that_has_any(monkeypatch, tmp_path):
    (tmp_path / "keys").write_text("from-key-file\n", "utf-8")
    (tmp_path / "server.yaml").write_text("api_keys: [from-config]\n", "utf-8")
    seen = []
    monkeypatch.setattr("dlm.cli.serve._serve", lambda *given: seen.append(given[-1].api_keys))
    monkeypatch.setattr("dlm.cli.serve.leave_on_terminate", lambda: None)
    monkeypatch.setenv("DLM_API_KEY", "from-environment,another")
    config = ["--config", str(tmp_path / "server.yaml")]
    flags = ["--api-key", "from-flag", "--api-key-file", str(tmp_path / "keys")]
    for arguments in ([], config, [*config, *flags]):
        assert run(["serve", *arguments]) == 0
    assert seen == [
        ("from-environment", "another"),
        ("from-config",),
        ("from-flag", "from-key-file"),
    ]


# what is refused


def command(*arguments):
    """The exit code and stderr of `dlm serve ...`, which ends by itself."""
    clean = {k: v for k, v in os.environ.items() if k != "DLM_API_KEY"}
    done = subprocess.run(
        [sys.executable, "-m", "dlm", "serve", *map(str, arguments)],
        cwd=ROOT,
        env=clean | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "no API key"),
        (["--host", "::"], "no API key"),
        (["--allowed-origins", "*"], "no API key"),
        (["--max-rows", 0], "`max_rows`"),
        (["--config", "{}/server.yaml"], "server.yaml)"),
        (["--config", "{}/none"], "No such file"),
        (["--api-key-file", "{}/keys"], "number 1 is not"),
        (["--port", 0, "--unmask", "leep"], "'leap'"),
        (["--port", 0, "--model", "no/such/folder"], "`model`"),
        (["--infill", "x"], "--infill"),
        (["--n", "2"], "--n"),
    ],
)
def test_wrong_settings_are_one_line_and_exit_code_2(
    arguments, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.delenv("DLM_API_KEY", raising=False)
    monkeypatch.setattr("dlm.cli.serve.leave_on_terminate", lambda: None)  # of this process
    (tmp_path / "server.yaml").write_text("max-rows: 0\n", "utf-8")
    (tmp_path / "keys").write_text("a key\n", "utf-8")
    code = run(["serve", *(str(argument).format(tmp_path) for argument in arguments)])
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert words in err
    assert err.startswith("dlm: error: ")


def test_a_busy_port_is_one_line():
    with listening_socket(ServerSettings(port=0)) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        code, err = command("--port", port)
    told = f"dlm: error: `port`: 127.0.0.1 port {port} is used by another program"
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(told)


def test_help_and_wrong_settings_import_neither_torch_nor_fastapi():
    commands = [["--help"], ["serve", "--help"], ["serve", "--max-rows", "0"]]
    code = (
        "import sys; from dlm.cli import run; "
        f"codes = [run(c) for c in {commands!r}]; "
        "print('>', codes, {'torch', 'fastapi', 'uvicorn', 'prometheus_client'} "
        "& sys.modules.keys())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines()[-1] == "> [0, 0, 2] set()"


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "prometheus_client", "yaml"])
def test_a_missing_package_is_told_with_its_remedy(package, tmp_path):
    (tmp_path / "server.yaml").write_text("port: 0\n", "utf-8")
    code = (
        f"import sys; sys.modules[{package!r}] = None; from dlm.cli import run; "
        f"sys.exit(run(['serve', '--config', {str(tmp_path / 'server.yaml')!r}]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"needs the package {package!r}" in ran.stderr
    assert "'.[serve]'" in ran.stderr
    assert ran.stderr.count("\n") == 1
