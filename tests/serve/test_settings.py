"""Settings of a server: rules, the YAML file, keys, and who may bind which address."""

import json
from dataclasses import FrozenInstanceError, fields

import pytest

import dlm
from dlm.errors import InvalidRequest
from dlm.serve.config_file import keys_of_environment, read_config, read_keys
from dlm.serve.settings import SETTINGS, ServerSettings, is_loopback, is_origin


def refusal(call, *arguments, **named):
    with pytest.raises(InvalidRequest) as caught:
        call(*arguments, **named)
    return caught.value


@pytest.fixture
def config(tmp_path):
    """Read a file with some text."""

    def read(text):
        path = tmp_path / "server.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_config(path)

    return read


def test_the_table_has_every_field_and_the_defaults_obey_it():
    assert list(SETTINGS) == [field.name for field in fields(ServerSettings)]
    settings = ServerSettings()
    assert (settings.host, settings.port, settings.api_keys) == ("127.0.0.1", 8000, ())
    assert settings.is_local
    settings.require_guarded()


def test_settings_are_frozen_and_hold_no_list():
    settings = ServerSettings(api_keys=["a"], allowed_origins=["*"], defaults={"unmask": "leap"})
    assert (settings.api_keys, settings.allowed_origins) == (("a",), ("*",))
    with pytest.raises(FrozenInstanceError):
        settings.port = 1
    with pytest.raises(TypeError):
        settings.defaults["seed"] = 1


def test_keys_are_in_no_repr_and_no_error():
    assert "secret" not in repr(ServerSettings(api_keys=["secret-key"]))
    for keys in ("secret-key", ["secret-key", "secret key"], ["secret-kéy"], ["secret-key", 5]):
        error = refusal(ServerSettings, api_keys=keys)
        assert error.param == "api_keys"
        assert "secret" not in str(error)
    assert "number 2 is not" in str(refusal(ServerSettings, api_keys=["a", ""]))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("host", "", "text"),
        ("host", 5, "text"),
        ("host", "a\nb", "text"),
        ("port", -1, "between 0 and 65535, got -1"),
        ("port", 65536, "between 0 and 65535"),
        ("port", "8000", "an integer"),
        ("port", True, "an integer"),
        ("port", 80.0, "an integer"),
        ("insecure", "yes", "true or false, got 'yes'"),
        ("model_id", "", "text"),
        ("max_rows", 0, "between 1 and 65536"),
        ("max_waiting", -1, "at least 0"),
        ("max_body_bytes", 10, "at least 1024"),
        ("max_canvas", 1, "at least 2"),
        ("max_new_tokens", 0, "at least 1"),
        ("max_new_tokens", None, "at least 1"),
        ("keep_alive", 0, "between 0.1 and 86400"),
        ("keep_alive", float("nan"), "between 0.1 and 86400"),
        ("keep_alive", "10", "seconds"),
        ("drain", -1, "between 0 and 86400"),
        ("drain", float("inf"), "between 0 and 86400"),
        ("allowed_origins", "http://a", "a list"),
        ("allowed_origins", ["a.example"], "origins (scheme://host:port) or '*'; got 'a.example'"),
        ("log_level", "loud", "'debug', 'error', 'info', 'warning', got 'loud'"),
        ("log_prompts", 1, "true or false"),
        ("page", None, "true or false"),
        ("defaults", [], "must map"),
        ("defaults", {1: 2}, "must map"),
    ],
)
def test_a_wrong_value_is_refused_with_its_rule(name, value, words):
    error = refusal(ServerSettings, **{name: value})
    assert error.param == name
    assert words in error.message


@pytest.mark.parametrize(
    ("options", "param", "words"),
    [
        ({"unmasc": "leap"}, "option", "did you mean 'unmask'?"),
        ({"steps": 0}, "steps", "got 0"),
        ({"infill": "a"}, "infill", "of one request"),
        ({"trace": True}, "trace", "of one request"),
        ({"n": 2}, "n", "of one request"),
        ({"max_new_tokens": 5}, "max_new_tokens", "a setting of its own"),
        ({"gen_length": 5}, "max_new_tokens", "a setting of its own"),
    ],
)
def test_default_options_are_those_of_generation(options, param, words):
    error = refusal(ServerSettings, defaults=options)
    assert error.param == param
    assert words in error.message


def test_default_options_are_named_as_the_fields():
    defaults = ServerSettings(defaults={"block_length": 8, "temperature": 0.5}).defaults
    assert defaults == {"blocks": "fixed(8, trained=True)", "temperature": 0.5}
    dlm.GenerationConfig(**defaults)


# who may bind which address


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("2001:db8::1", False),
        ("my.machine", False),
        ("127.1", False),
    ],
)
def test_another_address_than_loopback_needs_a_key(host, local):
    assert is_loopback(host) is local
    ServerSettings(host=host, api_keys=("k",)).require_guarded()
    ServerSettings(host=host, insecure=True).require_guarded()
    if local:
        ServerSettings(host=host).require_guarded()
    else:
        error = refusal(ServerSettings(host=host).require_guarded)
        assert error.param == "host"
        for word in (host, "DLM_API_KEY", "--api-key-file", "--insecure", "127.0.0.1"):
            assert word in error.message


def test_every_web_page_needs_a_key():
    error = refusal(ServerSettings(allowed_origins=["*"]).require_guarded)
    assert error.param == "allowed_origins"
    ServerSettings(allowed_origins=["*"], api_keys=("k",)).require_guarded()
    ServerSettings(allowed_origins=["http://a.example"]).require_guarded()


def test_origins():
    for text in ("*", "http://a.example", "https://a.example:8443", "http://[::1]:3000"):
        assert is_origin(text)
    for text in ("", "a", "http://", "http://a/", "http://a/b", "ftp://a", "http://u@a", "null"):
        assert not is_origin(text)
    assert not is_origin("http://a:99999")
    assert not is_origin("http://A.example")  # a browser sends it in lower case


# the file


def test_a_file_says_all_that_flags_say(config):
    lines = [
        "# a server",
        "model: tiny-block",
        "dtype: float32",
        "mask-id: 3",
        "override: {shift: true}",
        "aux: {ar: tiny-ar}",
        "host: 0.0.0.0",
        "api-keys: [a, b]",
        "max-rows: 8",
        "max_canvas: null",
        "keep_alive: 5",
        "log_prompts: yes",
        "page: false",
        "defaults:",
        "  unmask: threshold(0.8)",
        "  stop: [eos, END]",
    ]
    assert config("\n".join(lines)) == {
        "model": "tiny-block",
        "dtype": "float32",
        "mask_id": 3,
        "override": {"shift": True},
        "aux": {"ar": "tiny-ar"},
        "host": "0.0.0.0",
        "api_keys": ["a", "b"],
        "max_rows": 8,
        "max_canvas": None,
        "keep_alive": 5,
        "log_prompts": True,
        "page": False,
        "defaults": {"unmask": "threshold(0.8)", "stop": ["eos", "END"]},
    }


def test_every_setting_can_be_in_the_file(config):
    usual = ServerSettings()
    for name in SETTINGS:
        value = getattr(usual, name)
        text = json.dumps(dict(value) if name == "defaults" else value)  # YAML as well
        for key in (name, name.replace("_", "-")):
            found = config(f"{key}: {text}\n")
            assert ServerSettings(**found) == usual


def test_one_key_is_a_list_of_one(config):
    assert config("api_key: a") == config("api-keys: a") == {"api_keys": ["a"]}


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_says_nothing(config, text):
    assert config(text) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot: 1", ["'prot' is none of", "did you mean 'port'?"]),
        ("max_row: 1", ["did you mean 'max_rows'?"]),
        ("unmask: leap", ["'unmask' belongs under `defaults`"]),
        ("5: 1", ["5 is none of"]),
        ("[a, b]", ["must map names to values"]),
        ("hello", ["must map names to values"]),
        ("port: 1\nport: 2", ["line 2", "'port' is given twice"]),
        ("defaults:\n  seed: 1\n  seed: 2", ["line 3", "'seed' is given twice"]),
        ("max-rows: 1\nmax_rows: 2", ["'max_rows' twice"]),
        ("port: [", ["line 1"]),
        ("a: &a [*a]\nb: !!python/object/apply:os.system [ls]", ["python/object"]),
        ("port: !!int x", ["cannot be read"]),
        (b"\xff\xfe", ["UTF-8"]),
        (b"host: a\x00", ["server.yaml"]),
        ("[" * 100_000, ["cannot be read"]),
    ],
)
def test_a_wrong_file_is_refused_with_its_name(config, text, words):
    error = refusal(config, text)
    assert error.param == "config"
    assert "server.yaml" in error.message
    assert len(error.message) <= 360
    for word in words:
        assert word in error.message


@pytest.mark.parametrize(
    ("text", "param"),
    [
        ("port: x", "port"),
        ("model: 5", "model"),
        ("mask_id: x", "mask_id"),
        ("aux: [a]", "aux"),
        ("keep_alive: .nan", "keep_alive"),
        ("host: 2026-01-01", "host"),
        ("defaults: {steps: 0}", "steps"),
        ("defaults: {n: 3}", "n"),
    ],
)
def test_a_wrong_value_in_the_file_is_refused_with_its_key(config, text, param):
    error = refusal(config, text)
    assert error.param == param
    assert "(in " in error.message
    assert "server.yaml)" in error.message


def test_a_file_that_cannot_be_read(tmp_path):
    assert "No such file" in refusal(read_config, tmp_path / "none.yaml").message
    assert "cannot be read" in refusal(read_config, tmp_path).message
    (tmp_path / "large").write_bytes(b"# " + bytes(2**20))
    assert "more than" in refusal(read_config, tmp_path / "large").message


# keys


def test_keys_from_a_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text("# ours\nfirst-key\n\n  second-key \n", "utf-8")
    assert read_keys(path) == ("first-key", "second-key")
    path.write_text("# none\n\n", "utf-8")
    assert "holds no key" in refusal(read_keys, path).message
    path.write_text("a secret\n", "utf-8")
    assert "secret" not in str(refusal(read_keys, path))


def test_keys_from_the_environment():
    assert keys_of_environment({}) == keys_of_environment({"DLM_API_KEY": " ,"}) == ()
    assert keys_of_environment({"DLM_API_KEY": "a, b,"}) == ("a", "b")
    assert "secret" not in str(refusal(keys_of_environment, {"DLM_API_KEY": "a secret"}))
