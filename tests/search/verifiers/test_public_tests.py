"""The tests that a prompt shows are run in the sandbox, and the one that fails is told."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

import dlm
from dlm.errors import InvalidRequest
from dlm.sandbox import best_sandbox
from dlm.search.verifiers.examples import Example, examples_of
from dlm.search.verifiers.parsing import parse_verifier
from dlm.search.verifiers.programs import entry_of, program_of
from tests.search.verifiers.answers import STRANGE, answer_of, pointed, question_of, verdicts_of

PROMPT = '''def f(xs):
    """Sort it and drop the odd numbers.
    >>> f([3, 2, 4])
    [2, 4]
    >>> f([])
    []
    """
'''
RIGHT = "    xs = sorted(xs)\n    return [x for x in xs if x % 2 == 0]"
DATA = Path(dlm.__file__).parent / "evals" / "data"
# Elsewhere a verifier refuses to run programs unless it is told that this is fine.
SPEC = "tests" if best_sandbox().isolates else "tests(unsafe=True)"


@pytest.mark.parametrize(
    ("text", "score", "words"),
    [
        (RIGHT, 1, ""),
        ("```python\ndef f(xs):\n    return sorted(x for x in xs if x % 2 == 0)\n```", 1, ""),
        ("    return []", 1 / 3, "f([3, 2, 4]) gives [], not [2, 4]"),
        ("    return [2, 4]", 2 / 3, "f([]) gives [2, 4], not []"),
        ("    return 1 / 0", 1 / 3, "f([3, 2, 4]) raises ZeroDivisionError: division by zero"),
        ("    return xs[", 0, "The code does not parse"),
        ("    pass", 1 / 3, "f([3, 2, 4]) gives None, not [2, 4]"),
        ("    import os\n    os._exit(0)", None, ""),
        ("    raise SystemExit(0)", None, ""),
        ("", 0, "The answer is empty."),
    ],
)
def test_right_and_wrong_programs(engine, text, score, words):
    (verdict,), spent = verdicts_of(engine, SPEC, PROMPT, [text])
    assert verdict.feedback.startswith(words)
    assert bool(verdict.feedback) == (score != 1)
    if score is None:
        assert verdict.score < 1, "a program that leaves has not passed"
    else:
        assert verdict.score == pytest.approx(score)
    assert spent.errors == spent.forwards == 0


def test_a_fault_of_syntax_points_to_its_line(engine):
    question = question_of(engine, PROMPT)
    answer = answer_of(question, "    xs = sorted(xs)\n    return = xs", canvas=64)
    (verdict,) = parse_verifier(SPEC).bind(question).score([answer], question)
    assert pointed(question, answer, verdict).strip("\n") == "    return = xs"


def test_a_program_that_does_not_end_is_stopped(engine):
    spec = f"tests(seconds=0.5, unsafe={not best_sandbox().isolates})"
    (verdict,), _ = verdicts_of(engine, spec, PROMPT, ["    while True:\n        pass"])
    assert verdict.score == 0
    assert "timeout" in verdict.feedback


@pytest.mark.parametrize("text", STRANGE)
def test_no_text_makes_it_fall_over(engine, text):
    (verdict,), spent = verdicts_of(engine, SPEC, PROMPT, [text])
    assert 0 <= verdict.score < 1
    assert spent.errors == 0


def test_equal_programs_run_once(engine, monkeypatch):
    from dlm.search.verifiers import programs

    ran = []
    real = programs.check_program
    monkeypatch.setattr(programs, "check_program", lambda *a, **k: ran.append(a) or real(*a, **k))
    verdicts, _ = verdicts_of(engine, SPEC, PROMPT, [RIGHT, "    return []", RIGHT])
    assert [verdict.score for verdict in verdicts] == [1, pytest.approx(1 / 3), 1]
    assert len(ran) == 2


@pytest.mark.parametrize(
    ("prompt", "examples", "entry"),
    [
        (PROMPT, [("f([3, 2, 4])", "[2, 4]"), ("f([])", "[]")], "f"),
        (f"Complete this:\n```python\n{PROMPT}```", None, "f"),
        (
            "Write a function to add.\nassert add(1, 2) == 3\nassert sorted(add(0, 1)) == [1]",
            [("assert add(1, 2) == 3", ""), ("assert sorted(add(0, 1)) == [1]", "")],
            "add",
        ),
        (
            'def g(s):\n    """Say.\n\n    >>> x = "a b"\n    >>> print(g(x))\n    a b!\n    """',
            [('x = "a b"', ""), ("print(g(x))", "a b!")],
            "g",
        ),
        ('def h(x):\n    """No tests."""\n', [], "h"),
        (
            'def h(x):\n    """Assert it:\n    assert it\n    >>> h(1)\n    \'a\'"""',
            [("h(1)", "'a'")],
            "h",
        ),
        (
            'def h(x):\n    r"""\n    >>> h(1)\n    1\n    >>> h(1)\n    1\n    """\n',
            [("h(1)", "1")] * 2,
            "h",
        ),
        ("What is 3+4?", [], ""),
        (">>> f(1)\n2\n>>> f(2)\n3", [("f(1)", "2"), ("f(2)", "3")], "f"),
    ],
)
def test_examples_of_prompts(prompt, examples, entry):
    found = examples_of(prompt)
    if examples is not None:
        assert found == [Example(*example) for example in examples]
    else:
        assert found == examples_of(PROMPT)
    assert entry_of(prompt, found) == entry


@pytest.mark.parametrize(
    ("source", "wanted", "body", "right"),
    [
        ("f(1)", "'a'", "    return 'a'", True),
        ("f(1)", '"a"', "    return 'a'", True),
        ("f(1)", "{'b': 1, 'a': 2}", "    return {'a': 2, 'b': 1}", True),
        ("f(1)", "True", "    return 1", False),
        ("f(1)", "1", "    return True", False),
        ("f(1)", "1.0", "    return 1", False),
        ("print(f(1))", "a\nb", "    return 'a\\nb'", True),
        ("print(f(1))", "a c", "    return 'a\\nb'", False),
        ("f(1)", "None", "    return None", True),
    ],
)
def test_values_are_compared_as_an_interpreter_shows_them(engine, source, wanted, body, right):
    shown = wanted.replace("\n", "\n    ")
    prompt = f'def f(x):\n    """\n    >>> {source}\n    {shown}\n    """\n'
    (verdict,), _ = verdicts_of(engine, SPEC, prompt, [body])
    assert (verdict.score == 1) == right


def test_a_prompt_without_tests_is_refused_unless_that_is_fine(engine):
    prompt = 'def h(x):\n    """No tests."""\n'
    with pytest.raises(InvalidRequest, match="assert"):
        parse_verifier(SPEC).bind(question_of(engine, prompt))
    bare = "tests(bare=True)" if best_sandbox().isolates else "tests(bare=True, unsafe=True)"
    verdicts, _ = verdicts_of(engine, bare, prompt, ["    return x", "    return ("])
    assert [verdict.score for verdict in verdicts] == [1, 0]


def test_strangers_run_nothing_where_nothing_isolates(engine, monkeypatch):
    from dlm.sandbox import Sandbox
    from dlm.search.verifiers import programs

    weak = Sandbox("rlimit", "python3")
    monkeypatch.setattr(programs, "best_sandbox", lambda: weak)
    with pytest.raises(InvalidRequest, match="bubblewrap"):
        parse_verifier("tests").bind(question_of(engine, PROMPT))
    assert parse_verifier("tests(unsafe=True)").bind(question_of(engine, PROMPT))
    with pytest.raises(InvalidRequest):
        parse_verifier("tests(unsafe=True)", trusted=False)


def bundled(count):
    with gzip.open(DATA / "code.dev.jsonl.gz", "rt") as lines:
        items = [json.loads(line) for line in lines]
    return [item for item in items if item["meta"]["public"]][:count]


def test_the_bundled_prompts_show_their_public_tests(engine):
    for item in bundled(60):
        entry, public = item["meta"]["entry"], item["meta"]["public"]
        (example,) = examples_of(item["prompt"])
        ((given, wanted),) = public
        assert example == Example(f"{entry}({given!r})", repr(wanted))
        program = program_of(item["prompt"], item["answer"], entry)
        assert program.source == item["prompt"] + item["answer"] + "\n"


def test_the_bundled_answers_pass(engine):
    for item in bundled(4):
        (verdict,), _ = verdicts_of(engine, SPEC, item["prompt"], [item["answer"]])
        assert verdict.score == 1, verdict.feedback
