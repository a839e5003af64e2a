"""The command line: options, output, wrong input of every kind, exit codes."""

import io
import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import pytest

import dlm
from dlm.cli import output
from dlm.cli.info import parts_called

ROOT = Path(__file__).parents[1]
NO_TOKENIZER = ROOT / "tests" / "data" / "parity" / "models" / "llada"
SHORT = ("--max-new-tokens", "16", "--guide", "forbid", "--quiet")  # all 16 tokens are text


@dataclass(frozen=True, slots=True)
class Rule(dlm.Unmasker):
    """Commits one position a step; in its third step it raises what a user may meet."""

    error: str = ""

    def propose(self, view):
        if self.error == "interrupt" and int(view.row.step[0]) >= 2:
            raise KeyboardInterrupt
        if self.error == "bug" and int(view.row.step[0]) >= 2:
            raise RuntimeError("over\nthe edge")
        return dlm.Proposal(view.eligible & False)


@pytest.fixture
def stdin(monkeypatch):
    """Put bytes on stdin."""

    def put(data: bytes):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))

    return put


def refused(result):
    """The message of a refused command: one line on stderr, nothing on stdout, exit code 2."""
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("dlm: error: ")
    assert err.count("\n") == 1
    return err


# help and version


def words(text):
    """A help text without its frames and line breaks."""
    return " ".join(text.translate({ord(c): " " for c in "│╭╮╰╯─"}).split())


def test_every_field_has_an_option_and_help_shows_it(call):
    code, out, _ = call("generate", "--help")
    shown = words(out)
    assert code == 0
    assert {f.name for f in fields(dlm.GenerationConfig)} == set(dlm.FIELDS)
    kinds = {"integer": "INTEGER", "number": "NUMBER", "part": "PART", "parts": "PART"}
    kinds |= {"parts, strings": "PART|STRING", "map": "ID=NUMBER", "boolean": "FILE"}
    kinds |= {"template": "TEXT", "name": "NAME"}
    for name, field in dlm.FIELDS.items():
        assert f"--{name.replace('_', '-')} {kinds[field.type]} " in shown
        if name not in ("trace", "infill"):  # a file here, not a boolean; a text alone
            assert field.meaning in shown
            assert f"(default: {field.default})" in shown


def test_every_alias_of_the_reference_codes_has_an_option(call):
    shown = words(call("generate", "--help")[1])
    kinds = {"integer": "INTEGER ", "number": "NUMBER ", "name": "NAME ", "flag": "", "ids": "ID "}
    for name, field in dlm.FIELDS.items():
        for alias, (kind, spec, note) in field.aliases.items():
            start = f"--{alias.replace('_', '-')} {kinds[kind]}{note and f'{note}: '}--"
            assert f"{start}{name.replace('_', '-')}" in shown
            assert spec in shown


def test_help_explains_parts_and_shows_no_value_of_flags(call):
    shown = words(call("generate", "--help")[1])
    assert "PART is a name (leap)" in shown
    assert "'package.module:Class()'" in shown
    assert "--watch show the canvas" in shown


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help(call, arguments):
    code, out, err = call(*arguments)
    assert (code, err) == (0, "")
    assert "generate" in out
    assert "info" in out


@pytest.mark.parametrize(
    "command", ["", "generate", "chat", "serve", "decide", "verify", "eval", "eval bundled"]
)
def test_help_shows_no_value_beside_itself(call, command):
    code, out, _ = call(*command.split(), "--help")
    assert code == 0
    (line,) = (line for line in out.splitlines() if " -h " in line)
    assert "<" not in line


def test_help_and_wrong_arguments_import_neither_torch_nor_transformers():
    commands = [
        ["--help"],
        ["--version"],
        ["generate", "--help"],
        ["info", "--help"],
        ["decode"],
        ["generate", "--stepz", "3", "x"],
        ["generate", "--steps", "x", "x"],
        ["generate", "--steps", "0", "x"],
        ["generate", "--logit-bias", "x", "x"],
        ["generate", ""],
    ]
    code = (
        "import sys; from dlm.cli import run; "
        f"codes = [run(c) for c in {commands!r}]; "
        "print('>', codes, {'torch', 'transformers', 'numpy'} & sys.modules.keys())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines()[-1] == "> [0, 0, 0, 0, 2, 2, 2, 2, 2, 2] set()"
    assert ran.stderr.count("dlm: error: ") == ran.stderr.count("\n") == 6


def test_module_entry_point_and_broken_pipe():
    command = [sys.executable, "-m", "dlm", "--version"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"dlm {dlm.__version__}\n", "")
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


# generate


def test_a_canvas_longer_than_the_bundled_model_was_made_for_is_told(call):
    """On it a short answer is empty; the models without that limit are not warned of."""
    canvas = dlm.trained_canvas("tiny")
    code, out, err = call("generate", "hello", "--max-new-tokens", 2 * canvas)
    assert code == 0
    assert f"trained on canvases of up to {canvas} tokens, this one has {2 * canvas}" in err
    for more in (["--max-new-tokens", canvas], ["--model", "tiny-block", "--max-new-tokens", 512]):
        code, out, err = call("generate", "hello", *more)
        assert (code, out) == (0, "Hello! How can I help you today?\n")
        assert "canvas" not in err
    assert "canvas" not in call("generate", "hello", "--max-new-tokens", 512, "--quiet")[2]
    assert f"trained canvas      {canvas}\n" in call("info", "tiny")[1]
    assert "trained canvas" not in call("info", "tiny-block")[1]
    assert dlm.trained_canvas("owner/name") is None


def test_text_and_status(call):
    code, out, err = call("generate", "hello", *SHORT[:-1])
    generation = dlm.load().generate("hello", max_new_tokens=16, guide="forbid")
    assert (code, out) == (0, f"{generation.text}\n")
    nfe = generation.stats.nfe
    assert err.startswith(f"{nfe} forwards · {16 / nfe:.2f} tokens per forward · 16 tokens · ")
    assert err.endswith(" s · length\n")


def test_quiet(call):
    assert call("generate", "hello", *SHORT)[2] == ""


@pytest.mark.parametrize("arguments", [[], ["-"]], ids=["absent", "dash"])
@pytest.mark.parametrize("data", [b"hello", b"hello\n", b"hello\r\n"])
def test_stdin(call, stdin, arguments, data):
    stdin(data)
    assert call("generate", *arguments, *SHORT) == call("generate", "hello", *SHORT)


@pytest.mark.parametrize("data", [b"", b"\n", b" \n\t\n"])
def test_empty_stdin(call, stdin, data):
    stdin(data)
    assert "`prompt`: must not be empty" in refused(call("generate"))


def test_a_terminal_is_told_to_type(call, monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(b"hello\n"), encoding="utf-8")
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", terminal)
    code, out, err = call("generate", *SHORT)
    assert (code, err) == (0, "dlm: type the prompt, then Ctrl-D on a line of its own\n")
    assert out == call("generate", "hello", *SHORT)[1]
    monkeypatch.setattr(sys, "stdin", None)
    assert "`prompt`: must not be empty" in refused(call("generate"))


def test_broken_utf8(call, stdin):
    stdin(b"caf\xe9")
    assert "stdin must be UTF-8 text" in refused(call("generate"))
    assert "must be UTF-8 text" in refused(call("generate", "caf\udce9"))
    assert "`system`: must be UTF-8" in refused(call("generate", "x", "--system", "\udce9"))


def test_raw_and_system(call):
    engine = dlm.load()
    ids = engine.text.encode_prompt("def f(xs):", chat=False)
    raw = engine.generate(ids, max_new_tokens=16, guide="forbid")
    assert call("generate", "def f(xs):", "--raw", *SHORT)[1] == f"{raw.text}\n"
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hello"}]
    told = engine.generate(turns, max_new_tokens=16, guide="forbid")
    assert call("generate", "hello", "--system", "Be kind.", *SHORT)[1] == f"{told.text}\n"
    both = call("generate", "hello", "--system", "Be kind.", "--raw")
    assert "`system`: needs the chat template" in refused(both)


def test_json(call):
    code, out, _ = call("generate", "hello", "--json", "--logit-bias", "40=-2", *SHORT)
    generation = dlm.load().generate(
        "hello", max_new_tokens=16, guide="forbid", logit_bias={40: -2}
    )
    answer = json.loads(out)
    assert (code, out.count("\n")) == (0, 1)
    assert list(answer) == ["text", "finish_reason", "ids", "holes", "stats", "model", "config"]
    assert answer["text"] == generation.text
    assert answer["ids"] == list(generation.ids)
    assert answer["finish_reason"] == "length"
    stats = generation.stats
    expected = asdict(stats) | {"tokens_per_forward": 16 / stats.nfe}
    for times in ("seconds", "first_seconds", "settled"):
        assert answer["stats"].pop(times)
        del expected[times]
    assert answer["stats"] == json.loads(json.dumps(expected))
    assert answer["model"] == "tiny"
    assert answer["config"].keys() == dlm.FIELDS.keys()
    assert answer["config"]["max_new_tokens"] == 16
    assert answer["config"]["guide"] == ["forbid"]
    assert answer["config"]["logit_bias"] == {"40": -2}


def test_json_with_the_most_likely_ids(call):
    answer = json.loads(call("generate", "hello", "--json", "--top-logprobs", "3", *SHORT)[1])
    told = dlm.load().generate("hello", max_new_tokens=16, guide="forbid", top_logprobs=3)
    assert [[tuple(e) for e in likely] for likely in answer["top_logprobs"]] == [
        *map(list, told.top_logprobs)
    ]
    assert {len(likely) for likely in answer["top_logprobs"]} == {3}


def test_choices_and_seeds(call):
    warm = ("hello", *SHORT, "--temperature", "1.5", "--n", "3")
    answer = json.loads(call("generate", *warm, "--json")[1])
    texts = [choice["text"] for choice in answer["choices"]]
    assert len(set(texts)) == 3
    assert answer["text"] == texts[0]
    assert answer["choices"][1].keys() == {"text", "finish_reason", "ids", "holes", "stats"}
    shown = "".join(f"--- {n} of 3: length\n{text}\n" for n, text in enumerate(texts, start=1))
    assert call("generate", *warm)[1] == shown
    assert call("generate", *warm, "--seed", "0")[1] == shown
    assert call("generate", *warm, "--seed", "1")[1] != shown


def test_stop_strings(call):
    text = call("generate", "hello", *SHORT)[1].rstrip("\n")
    stop = text[len(text) // 2 :][:2]
    code, out, _ = call("generate", "hello", *SHORT, "--stop", "§§", "--stop", stop)
    assert (code, out) == (0, f"{text[: text.index(stop)]}\n")


def test_parts_and_aliases_reach_the_engine(call):
    parts = ["--unmask", "threshold(0.5)", "--blocks", "fixed(8)", "--cache", "dual"]
    ours = json.loads(call("generate", "hello", *SHORT, *parts, "--json")[1])
    assert ours["stats"]["forwards"].keys() == {"refresh step", "step"}
    names = ["--threshold", "0.5", "--block-length", "8", "--cache", "dual"]
    theirs = json.loads(call("generate", "hello", *SHORT, *names, "--json")[1])
    assert theirs["ids"] == ours["ids"]
    both = call("generate", "x", "--gen-length", "8", "--max-new-tokens", "8")
    assert "`gen_length`: stands for `max_new_tokens`" in refused(both)
    generation = dlm.load().generate("hello", gen_length=8, logits_eos_inf=True)
    alias = call("generate", "hello", "--gen-length", "8", "--logits-eos-inf", "--quiet")
    assert alias == (0, f"{generation.text}\n", "")


def test_own_rule(call):
    code, _, err = call("generate", "hello", *SHORT[:-1], "--unmask", "tests.test_cli:Rule()")
    assert code == 0
    assert err.startswith("16 forwards · 1.00 tokens per forward")


def test_trace(call, tmp_path):
    path = tmp_path / "events.jsonl"
    code, out, _ = call("generate", "hello", *SHORT, "--trace", path, "--json", "--n", "2")
    events = [dlm.Event.from_json(json.loads(line)) for line in path.read_text().splitlines()[1:]]
    assert code == 0
    for choice, canvas in zip(json.loads(out)["choices"], dlm.replay(events).values(), strict=True):
        assert canvas.ids[canvas.prompt :] == choice["ids"]
    assert "must be a file" in refused(call("generate", "x", "--trace", tmp_path))
    absent = tmp_path / "no" / "file"
    assert "cannot be written" in refused(call("generate", "x", "--trace", absent))


def test_explain(call):
    code, out, err = call(
        "generate", "--explain", "--cache", "dual", "--steps", "8", "--unmask=topk"
    )
    assert (code, err) == (0, "")
    assert out == f"{dlm.load().explain(cache='dual', steps=8, unmask='topk')}\n"
    facts = json.loads(call("generate", "--explain", "--json")[1])
    assert facts["exact"] is True
    assert [p["kind"] for p in facts["parts"]] == ["blocks", "unmask", "stop", "cache"]


def test_text_that_stdout_cannot_show(monkeypatch):
    generation = replace(dlm.load().generate("hello", max_new_tokens=2), text="naïve ☃")
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    output.answer(generation, "m", dlm.GenerationConfig(), as_json=False, quiet=True)
    assert stdout.buffer.getvalue() == b"na?ve ?\n"


# interruption and faults


def test_ctrl_c_prints_what_there_is(call, tmp_path):
    rule = "tests.test_cli:Rule('interrupt')"
    path = tmp_path / "events.jsonl"
    code, out, err = call("generate", "hello", *SHORT[:-1], "--unmask", rule, "--trace", path)
    assert code == 130
    assert "2 forwards" in err or "3 forwards" in err
    events = [dlm.Event.from_json(json.loads(line)) for line in path.read_text().splitlines()[1:]]
    assert sum(event.type == "commit" for event in events) == 2
    code, out, _ = call("generate", "hello", *SHORT, "--unmask", rule, "--json")
    assert code == 130
    assert json.loads(out)["finish_reason"] == "abort"


def test_ctrl_c_while_loading(call, monkeypatch):
    def load(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(dlm, "load", load, raising=False)
    assert call("generate", "hello") == (130, "", "")


def test_a_fault_is_one_line_and_its_traceback_is_kept_for_debugging(call, monkeypatch):
    def load(*args, **kwargs):
        raise RuntimeError("over\nthe edge")

    monkeypatch.setattr(dlm, "load", load, raising=False)
    monkeypatch.delenv("DLM_DEBUG", raising=False)
    code, out, err = call("generate", "hello")
    assert (code, out) == (1, "")
    assert err.startswith("dlm: error: this is a bug: RuntimeError: over the edge (")
    assert err.count("\n") == 1
    monkeypatch.setenv("DLM_DEBUG", "1")
    code, _, err = call("generate", "hello")
    assert code == 1
    assert "Traceback" in err


def test_a_rule_that_raises_is_told_with_its_own_lines_and_its_name(call, monkeypatch):
    monkeypatch.delenv("DLM_DEBUG", raising=False)
    code, out, err = call("generate", "hello", *SHORT, "--unmask", "tests.test_cli:Rule('bug')")
    first, *trace, last = err.splitlines()
    assert (code, out, first) == (1, "", "Traceback (most recent call last):")
    assert "test_cli.py" in trace[0]
    assert trace[0].endswith("in propose")
    assert not any("dlm/engine" in line for line in trace)
    assert re.fullmatch(
        r"dlm: error: unmask part Rule \(.*test_cli.py:\d+\) raised RuntimeError: over the edge",
        last,
    )


def test_busy_engine(call, monkeypatch):
    def load(*args, **kwargs):
        raise dlm.Unavailable("does not fit")

    monkeypatch.setattr(dlm, "load", load, raising=False)
    assert refused(call("generate", "hello")) == "dlm: error: does not fit\n"


# wrong input

WRONG = {
    "--max-new-tokens -3": "`max_new_tokens`: must be an integer of at least 1, got -3",
    "--max-new-tokens 0": "must be an integer of at least 1, got 0",
    "--max-new-tokens many": "'--max-new-tokens'",
    "--max-new-tokens 100000": "the limit of the model is 1024",
    "--steps -1": "`steps`: must be an integer between 1 and 2147483647, got -1",
    "--steps 7": "`steps`: no part follows a schedule",
    "--steps 7 --unmask topk": "multiple of the number of blocks, 4",
    "--n 0": "`n`: must be an integer",
    "--temperature -1": "`temperature`: must be a finite number",
    "--temperature nan": "`temperature`: must be a finite number",
    "--top-p 0": "`top_p`: must be greater than 0",
    "--top-p 2": "`top_p`: must be a finite number between 0 and 1",
    "--top-k -1": "`top_k`: must be an integer",
    "--seed 99999999999999999999": "`seed`: must be a 64-bit integer",
    "--logit-bias 5": "`logit_bias`: must be ID=NUMBER, got '5'",
    "--logit-bias 5=x": "`logit_bias`: must be ID=NUMBER, got '5=x'",
    "--logit-bias 5=1 --logit-bias 5=2": "`logit_bias`: id 5 is given twice",
    "--logit-bias 5000=1": "ids must be between 0 and 1023, got 5000",
    "--unmask treshold": "did you mean 'threshold'?",
    "--unmask threshold(2)": "`threshold` must be between 0 and 1, got 2",
    "--unmask threshold(sure=1)": "'shares', 'threshold', got 'sure'",
    "--unmask threshold(1,2)": "takes at most 1 argument",
    "--unmask threshold('a')": "`threshold` must be a finite number, got 'a'",
    "--unmask threshold(": "must be a name or name(argument=value, ...)",
    "--unmask topk(steps=2.5)": "must be an integer",
    "--blocks fixed(8.5)": "`length` must be",
    "--guide forbid(5)": "`guide`: `ids` must be",
    "--stop eos(ids=5)": "`stop`: `ids` must be",
    "--logit-bias 5=nan": "`logit_bias`",
    "--unmask threshold(x)": "with literal values",
    "--unmask no.such:Rule": "found no module 'no.such'",
    "--unmask tests.test_cli:Rul": "got 'Rul'; did you mean 'Rule'?",
    "--unmask tests.test_cli:NO_TOKENIZER": "must name a class",
    "--blocks 0": "must be one of 'adaptive'",
    "--blocks fixed(0)": "`length` must be at least 1, got 0",
    "--edit rcr(4) --unmask everything --cache dual": 'dual(on_edit="requery")',
    "--guide ban": "`guide`: must be one of",
    "--stop=": "`stop`: a stop string must not be empty",
    "--cache block_causal": "use 'none', 'prefix' or 'dual'",
    "--cache lru": "must be one of 'block_causal', 'delayed'",
    "--remasking worst": "must be 'low_confidence' or 'random', got 'worst'",
    "--model nope": "bundled models: 'tiny'",
    "--device tpu": "must be 'auto', 'cpu', 'cuda' or 'cuda:N', got 'tpu'",
    "--device cuda:99": "'cuda:99' is not here",
    "--dtype float7": "must be one of 'auto', 'bfloat16'",
    "--mask-id 5000": "`mask_id` must be in 0..1023, got 5000",
    "--aux ar": "`aux`: must be NAME=MODEL, got 'ar'",
    "--aux ar=nowhere": "must be a folder or a hub id",
    "--aux entropy=tiny": "no statistic, got 'entropy'",
    "--override mask": "`override`: must be NAME=VALUE, got 'mask'",
    "--override =3": "`override`: must be NAME=VALUE, got '=3'",
    "--override colour=3": "must be one of 'attention'",
    "--override mask_id=4 --mask-id 4": "`mask_id` is given twice",
    "--override shift=maybe": "`shift` must be True or False, got 'maybe'",
    "another": "unexpected extra argument",
}


@pytest.mark.parametrize("arguments", list(WRONG))
def test_wrong_input(call, arguments):
    assert WRONG[arguments] in refused(call("generate", "hello", *arguments.split()))


def test_empty_and_too_long_prompts(call):
    assert "`prompt`: must not be empty" in refused(call("generate", ""))
    assert "`prompt`: must not be empty" in refused(call("generate", "  \n"))
    assert "the limit of the model is 1024" in refused(call("generate", "word " * 2000))


def test_unknown_commands_and_options(call):
    assert "No such command 'decode'" in refused(call("decode"))
    assert "No such option: --stepz" in refused(call("generate", "--stepz", "3", "x"))
    assert "requires" in refused(call("generate", "x", "--steps"))
    for surplus in (("two", "words"), ("x", "--watch", "true")):
        told = refused(call("generate", *surplus))
        assert "needs quotes, and flags like --watch take no value" in told


def test_broken_checkpoints(call, tmp_path):
    def message():
        return refused(call("generate", "x", "--model", tmp_path))

    assert "has no config.json" in message()
    (tmp_path / "config.json").write_text("{")
    assert "is not readable JSON" in message()
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    assert f"{tmp_path / 'config.json'}: `model_type` must be one of 'Dream', " in message()
    assert "got 'gpt2'" in message()
    (tmp_path / "config.json").write_text((NO_TOKENIZER / "config.json").read_text())
    assert "`model`" in message()
    weights = (NO_TOKENIZER / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert "`model`" in message()
    file = tmp_path / "config.json"
    assert "`model`" in refused(call("generate", "x", "--model", file))
    assert "`model`" in refused(call("info", tmp_path / "nothing"))


def test_a_model_without_a_tokenizer(call):
    folder = ("--model", NO_TOKENIZER)
    for raw in ((), ("--raw",)):
        told = refused(call("generate", "x", *raw, *folder))
        assert f"`model`: {NO_TOKENIZER} came without a tokenizer: add tokenizer.json" in told
    code, out, _ = call("info", NO_TOKENIZER)
    assert code == 0
    assert "none: prompts are token ids" in out


# info


def test_info(call):
    code, out, err = call("info")
    assert (code, err) == (0, "")
    assert dlm.__version__ in out
    facts = json.loads(call("info", "--json")[1])
    assert facts["models"] == list(dlm.bundled_names())
    assert facts["devices"][0].startswith("cpu")
    listed = {(part["kind"], part["name"]) for part in facts["parts"]}
    assert listed == {(kind, name) for kind, known in dlm.KINDS.items() for name in known.names()}
    for part in facts["parts"]:
        assert part["does"]
        assert part["tier"] in ("T1", "T2", "T3", "own rule")
        assert part["name"] in out


@pytest.mark.parametrize("name", ["neighbours", "pll", "leap", "threshold", "blamed", "dual"])
def test_info_of_a_part(call, name):
    code, out, err = call("info", "--part", name)
    assert (code, err) == (0, "")
    found = json.loads(call("info", "--part", name, "--json")[1])["parts"]
    assert {part["name"] for part in found} == {name}
    for part in found:
        assert f"{part['kind']} {name}({part['arguments']})\n\n{part['text']}\n" in out


def test_each_argument_of_a_part_is_explained(call):
    facts = json.loads(call("info", "--json")[1])
    for name in {part["name"] for part in facts["parts"] + facts["searches"]}:
        for part in parts_called(name):
            for argument in re.findall(r"(?:^|, )(\w+)=", part["arguments"]):
                assert re.search(rf"\b{argument}\b", part["text"]), (name, argument)


def test_info_of_a_part_that_is_none(call):
    assert "did you mean 'neighbours'?" in refused(call("info", "--part", "neighbors"))
    assert "`part`: is described by itself" in refused(call("info", "tiny", "--part", "pll"))


def test_info_of_the_installation_takes_no_overrides(call):
    for option in ("--mask-id", "5"), ("--override", "shift=true"):
        assert "`override`: changes a model: name one" in refused(call("info", *option))


def test_info_of_a_model(call):
    code, out, err = call("info", "tiny")
    assert (code, err) == (0, "")
    facts = json.loads(call("info", "tiny", "--json")[1])
    engine = dlm.load()
    assert facts["family"] == "llada"
    assert facts["parameters"] == sum(p.numel() for p in engine.model.parameters())
    assert f"{facts['parameters']:,}" in out
    assert facts["kv_bytes_per_token"]["float32"] == engine.model.spec.kv_bytes_per_token(4)
    assert (facts["mask_id"], facts["eos_ids"]) == (engine.info.mask_id, list(engine.info.eos_ids))
    assert facts["tokenizer"]["chat_template"] is True
    assert engine.info.mask_id in facts["tokenizer"]["control_tokens"].values()
    changed = json.loads(call("info", "tiny", "--json", "--override", "eos_ids=(3,)")[1])
    assert changed["eos_ids"][0] == 3
