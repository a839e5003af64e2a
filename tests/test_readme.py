"""README.md and docs/ tell the truth: their code runs and their tables are those of the code.

`python -m tests.test_readme` writes the tables anew.
"""

import ast
import inspect
import io
import re
import shlex
from functools import cache, partial
from itertools import groupby
from pathlib import Path

import pytest

import dlm
from dlm.cli import run
from dlm.cli.info import parts, searches
from dlm.model.families import FAMILIES
from dlm.sandbox import best_sandbox
from dlm.serve.search_fields import SEARCH_FIELDS
from dlm.serve.settings import SETTINGS, ServerSettings
from tests import search_tables
from tests.helpers import PARITY, false_equations, leave_out_built_in_tasks
from tests.serve.field_table import fields_table

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
BUNDLED_HERE = "<!-- the tests load the bundled model here -->\n"
"""Before a block whose checkpoint is not part of the tests."""

# What the families' own publications call their checkpoints.
CHECKPOINTS = {
    "llada": "LLaDA 8B, LLaDA 1.5; the bundled model",
    "llada_moe": "LLaDA-MoE 7B-A1B",
    "llada2_moe": "LLaDA2.0 mini, flash",
    "Dream": "Dream 7B",
    "sdar": "SDAR 1.7B to 8B",
    "sdar_moe": "SDAR 30B-A3B",
    "Fast_dLLM_Qwen": "Fast-dLLM v2 1.5B, 7B",
    "rnd1": "RND1 30B-A3B",
    "a2d-llama": "Llama checkpoints turned into diffusion models",
    "a2d-qwen2": "Qwen2 checkpoints turned into diffusion models",
    "a2d-qwen3": "Qwen3 checkpoints turned into diffusion models",
}
DIFFUSION = {name: f for name, f in FAMILIES.items() if f.attention != "causal"}


def table(header, rows):
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in lines) + "\n"


def options_table():
    header = ["option", "type", "default", "other names in reference codes", "meaning"]
    rows = [
        [f"`{name}`", f.type, f.default, ", ".join(f"`{a}`" for a in f.aliases), f.meaning]
        for name, f in dlm.FIELDS.items()
    ]
    return table(header, rows)


def one_line(text):
    """The first sentence, without the arXiv ids that have a column of their own."""
    sentence = re.split(r"(?<=\.)\s+(?=[A-Z`])", text)[0]
    return re.sub(r"\s*\(\)", "", re.sub(r"[,:]?\s*arXiv \d{4}\.\d+", "", sentence))


def described(found):
    """The cells of parts, but for their kind."""
    for part in found:
        assert part["tier"], part["does"]  # one that cannot be imported has none
        ids = part["papers"].split(", ") if part["papers"] else []
        links = ", ".join(f"[{i}](https://arxiv.org/abs/{i})" for i in ids)
        arguments = part["arguments"] and f"`{part['arguments']}`"
        line = one_line(part["does"])
        yield [f"`{part['name']}`", line, arguments, links, part["tier"]]


COLUMNS = ["name", "what it does", "arguments", "paper", "tier"]


def parts_table():
    kinds = [part["kind"] for part in parts()]
    rows = [[kind, *cells] for kind, cells in zip(kinds, described(parts()), strict=True)]
    return table(["kind", *COLUMNS], rows)


def searches_table(kind):
    """The policies or the verifiers, without the name at the beginning of a description."""
    found = (part for part in searches() if part["kind"] == kind)
    rows = [[n, re.sub(r"^`[^`]*`: ", "", line), *more] for n, line, *more in described(found)]
    return table(COLUMNS, rows)


def names_table():
    """The parts by name alone."""
    rows = [
        [f"`{kind}`", ", ".join(f"`{part['name']}`" for part in found)]
        for kind, found in groupby(parts(), key=lambda part: part["kind"])
    ]
    return table(["kind of part", "names"], rows)


def attention(family):
    return family.attention.replace("_", "-") + (", shifted" if family.shift else "")


def families_table():
    """The families by their attention alone."""
    found = {}
    for name, family in DIFFUSION.items():
        found.setdefault(attention(family), []).append(f"`{name}` ({CHECKPOINTS[name]})")
    return table(
        ["attention", "`model_type` (checkpoints)"],
        [[kind, ", ".join(names)] for kind, names in found.items()],
    )


def models_table():
    names = ("llada", "dream", "sdar", "llada2", "fast_dllm_v2")
    recorded = {(PARITY / "models" / name / "config.json").read_text() for name in names}
    rows = []
    for name, family in DIFFUSION.items():
        proved = any(f'"model_type": "{name}"' in config for config in recorded)
        block = f", blocks of {family.block[1]}" if family.block else ""
        rows.append(
            [
                f"`{name}`",
                CHECKPOINTS[name],
                family.attention.replace("_", "-") + block,
                "yes" if family.shift else "no",
                "logits parity recorded" if proved else "shapes tested",
            ]
        )
    return table(["`model_type`", "checkpoints", "attention", "shift", "status"], rows)


def presets_table():
    def spelled(options):
        return "-" if options is None else f"`{', '.join(options.values())}`"

    rows = [
        [
            *(f"`{name}`", p.use, *map(spelled, (p.full, p.shifted, p.block_causal))),
            *(p.source, p.evidence),
        ]
        for name, p in dlm.PRESETS.items()
    ]
    return table(
        [
            *("name", "for", "LLaDA", "Dream", "SDAR, LLaDA2", "from"),
            "bundled dev split, beside one token a step",
        ],
        rows,
    )


def extension_table():
    """The options of the `dlm` object."""
    rows = [[f"`{name}`", f.type, f.default, f.meaning] for name, f in dlm.FIELDS.items() if f.http]
    return table(["option", "type", "default", "meaning"], rows)


def search_fields_table():
    """The fields of the `dlm` object that ask for a search."""
    rows = [[f"`{name}`", *field] for name, field in SEARCH_FIELDS.items()]
    return table(["field", "type", "default", "meaning"], rows)


def settings_table():
    """The settings of a server, as flags."""
    usual = ServerSettings()
    rows = []
    for name, s in SETTINGS.items():
        flag, meaning = s.flag or name.replace("_", "-"), s.meaning
        if usual_value(usual, name) == "true":
            flag, meaning = f"no-{flag}", f"do not {meaning}"
        if name != "defaults":
            shown = "" if s.type == "flag" else usual_value(usual, name)
            rows.append([f"`--{flag}`", s.type, shown, meaning])
    return table(["flag", "type", "default", "meaning"], rows)


def usual_value(settings, name):
    value = getattr(settings, name)
    return "" if value in (None, False, ()) else str(value).lower()


TABLES = {
    "dlm-options": extension_table,
    "dlm-search": search_fields_table,
    "search-curves": lambda: table(*search_tables.curves_rows()),
    "search-verifiers": lambda: table(*search_tables.verifiers_rows()),
    "policies": partial(searches_table, "search"),
    "verifiers": partial(searches_table, "verifier"),
    "fields": fields_table,
    "settings": settings_table,
    "families": families_table,
    "names": names_table,
    "options": options_table,
    "presets": presets_table,
    "parts": parts_table,
    "models": models_table,
}


def block(name):
    """The pattern of the text between a pair of markers."""
    return re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.DOTALL)


@cache
def text_of(page):
    return page.read_text("utf-8")


SERVED = "server"
"""The page whose code needs a server: `tests/serve/test_docs.py` runs it."""
RUN = [page for page in PAGES if page.stem != SERVED]


def code_blocks(language, pages=RUN):
    """The fenced blocks of one language, as (page, whether the bundled model stands in, code)."""
    fence = re.compile(rf"^({BUNDLED_HERE})?```{language}\n(.*?)^```", re.M | re.S)
    return [(p, bool(b), code) for p in pages for b, code in fence.findall(text_of(p))]


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_those_of_the_code(name):
    found = [f[0] for page in PAGES for f in [block(name).search(text_of(page))] if f]
    assert len(found) == 1, f"{name!r} must have markers on one page"
    assert found[0] == TABLES[name](), "run `python -m tests.test_readme`"


@pytest.mark.parametrize(
    ("page", "bundled", "code"),
    [
        pytest.param(*found, id=f"{found[0].stem}-{number}")
        for number, found in enumerate(code_blocks("python"))
    ],
)
def test_python_runs(page, bundled, code, capsys, monkeypatch):
    """From the root of the project, whose examples they name."""
    monkeypatch.chdir(ROOT)
    if "harness" in code:
        leave_out_built_in_tasks(monkeypatch)
    if bundled:
        load, signature = dlm.load, inspect.signature(dlm.load)
        monkeypatch.setattr(dlm, "load", lambda *a, **k: signature.bind(*a, **k) and load())
    exec(compile(code, f"a block of {page.name}", "exec"), {})
    out = capsys.readouterr().out
    for shown in re.findall(r"^ *print\(.*\)  # (\(.*\))$", code, re.M):
        assert shown in out


def test_false_equations_are_found():
    assert false_equations("9+6=15\n2+15=21\n2*3=6 and 4-1=2\n\\boxed{1+1=3}") == [
        *("2+15=21", "4-1=2", "1+1=3"),
    ]


def commands(program="dlm", pages=RUN):
    """The commands that stand alone on a line of a block; a server would not end."""
    lines = "".join(code for *_, code in code_blocks("sh", pages)).replace("\\\n", "").splitlines()
    found = [line.split("  #")[0].strip() for line in lines if line.startswith(f"{program} ")]
    return [line for line in found if not line.startswith("dlm serve")]


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("page", [pytest.param(p, id=p.stem) for p in RUN if commands(pages=[p])])
def test_commands_run(page, capsys, monkeypatch, tmp_path):
    """One after the other in one folder, as some read what others have written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    for command in commands(pages=[page]):
        words = shlex.split(re.sub(r"(?<=--limit )\d+", "2", command))  # the shape, in less time
        if words[2:3] == ["humaneval"] and not best_sandbox().isolates:
            words.append("--allow-unsafe-code")
        assert not {"|", ">", "<"} & set(words)
        code, shown = run(words[1:]), capsys.readouterr()
        assert code == 0, shown.err
        if words[1] != "trace":  # a tree shows the wrong answers of a search as well
            assert false_equations(shown.out) == [], command
        if words[1] == "generate" and "--explain" not in words:
            assert shown.out.strip(), command


def test_what_make_demo_shows_is_what_it_gives(capsys):
    """But for the seconds, which are the machine's."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    shown = re.sub(r"[\d.]+ s · ", "", block("demo").search(text_of(README))[0])
    for prompt in re.findall(r"^define \w+\n(.*?)\nendef$", makefile, re.M | re.S):
        assert run(["generate", prompt]) == 0
        out, err = capsys.readouterr()
        assert out + re.sub(r"[\d.]+ s · ", "", err) in shown


def test_the_first_lines_install_and_run():
    """`tests/wheel_check.py` follows them in a clone of its own."""
    install, first = code_blocks("sh", [README])[0][-1].strip().rsplit("\n", 1)
    assert "pip install -c constraints.txt ." in install
    assert first in commands(pages=[README])


@pytest.mark.slow
def test_the_harness_command_runs(capsys, monkeypatch, tmp_path):
    pytest.importorskip("lm_eval")
    from dlm.evals.harness import main

    (command,) = commands("dlm-lm-eval")
    command = re.sub(r"(?<=--limit )\d+", "2", command)  # the shape, in less time
    words = [tmp_path if word == "runs/harness" else word for word in shlex.split(command)]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", list(map(str, words)))
    main()
    assert "dlm_choice" in capsys.readouterr().out
    assert list(tmp_path.rglob("results_*.json"))


def test_there_is_something_to_run():
    assert len(code_blocks("python")) >= 6
    assert sum(bundled for _, bundled, _ in code_blocks("python")) == 1
    assert len(commands()) >= 16
    assert len(our_calls()) >= 12


def our_calls():
    """The calls of `engine.generate` in tables."""
    rows = (line for page in PAGES for line in text_of(page).splitlines() if line[:1] == "|")
    return [call for row in rows for call in re.findall(r"`(engine\.generate\(.*?\))`", row)]


@pytest.mark.parametrize("call", our_calls())
def test_calls_in_tables_have_options_that_exist(call):
    options = {k.arg: ast.literal_eval(k.value) for k in ast.parse(call).body[0].value.keywords}
    dlm.GenerationConfig.from_options(options)


def write():
    """Put the tables of the code into their pages."""
    for page in PAGES:
        text = text_of(page)
        for name, make in TABLES.items():
            text = block(name).sub(lambda _, make=make: make(), text)
        page.write_text(text, "utf-8")


if __name__ == "__main__":
    write()
