"""Every option and every argument of every part, with values that nobody should give: what comes is
a request that can run, or one short line.
"""

from dataclasses import fields

import numpy as np
import pytest
import torch

import dlm
from dlm.config import FIELDS, KINDS
from dlm.config.aliases import ALIASES
from dlm.errors import InvalidRequest, Unavailable

SURROGATE = "a\ud83d"
HUGE = 10**5000
"""More digits than Python prints."""


def nested(depth):
    inner = []
    for _ in range(depth):
        inner = [inner]
    return inner


NUMBERS_GIVEN = (
    *(2**31 - 1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**400, HUGE, -HUGE, 0, -1, True, False),
    *(float("inf"), float("-inf"), float("nan"), 1e308, 5e-324, 1 + 2j),
    *(np.int64(3), np.float32(0.5), torch.tensor(3), torch.tensor([1, 2]), np.array([1, 2])),
)
OTHERS_GIVEN = (
    *("x" * 100_000, SURROGATE, "", " ", "\0", "(" * 10_000, "-" * 10_000, "9" * 5000, b"x"),
    *([], (), {}, nested(10_000), object(), None, (1,) * 50_000, ("a",), [None] * 5, range(3)),
    *([2**70], [None, HUGE], [True], {2**70: 1}, {0: HUGE}, {HUGE: 1}, {"9" * 5000: "a"}),
    *({True: 1}, {1: SURROGATE}, "threshold(" + "9" * 5000 + ")", "[[mask:999999]]", Exception),
)
SPECS = (
    *("2147483648", "9223372036854775808", "-9223372036854775809", "1" + "0" * 400, "9" * 5000),
    *("1e999", "-1e999", "True", "None", "'x'", "''", "()", "[]", "{}", "{1: 2}", "b'x'"),
    *("-" * 10_000 + "1", "(" * 10_000 + ")" * 10_000, "[" * 90 + "]" * 90, "1" + "+1" * 4000),
    *(
        "'" + "x" * 100_000 + "'",
        "(" + "1," * 9000 + ")",
        "'\\ud83d'",
        SURROGATE,
        "__import__('os')",
    ),
    *("f(1)", "x", "1 if 1 else 2", "lambda: 1", "*a", "**a", "a=1, a=2", "\0", "1)(2"),
)


@pytest.fixture(scope="module")
def engine():
    return dlm.load("tiny", device="cpu")


def prepared(engine, prompt, **options):
    """A checked request that is not queued."""
    return engine.prepare(prompt, dlm.GenerationConfig.from_options(options))


def short(ask, *arguments, **options):
    """Ask; a refusal must be one short line that names something."""
    try:
        ask(*arguments, **options)
        said = ""
    except (InvalidRequest, Unavailable) as refused:
        said = str(refused)
    assert len(said) < 460
    assert "\n" not in said


@pytest.mark.parametrize("name", [*FIELDS, *sorted(ALIASES), "no_such"])
def test_options(engine, name):
    length = {} if name in ("max_new_tokens", "gen_length") else {"max_new_tokens": 4}
    for value in (*NUMBERS_GIVEN, *OTHERS_GIVEN):
        short(engine.explain, **{name: value})
        short(prepared, engine, "hello", **{**length, name: value})


RUN = ("0", "1", "-1", "0.5", "2147483647", "1e308", "-1e308", "5e-324", "9e18")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_accepted_runs(engine, kind):
    for name in KINDS[kind].names():
        cls = KINDS[kind].load(name)
        for argument in (f.name for f in fields(cls) if not f.metadata.get("bound")):
            for value in RUN:
                if (argument, value) != ("steps", "2147483647"):  # as many forwards as it says
                    spec = f"{name}({argument}={value})"
                    short(engine.generate, "hello", max_new_tokens=4, **{kind: spec})


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k", "seed"])
def test_draws_run(engine, name):
    for value in NUMBERS_GIVEN:
        short(engine.generate, "hello", max_new_tokens=4, **{"temperature": 0.5, name: value})


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_of_parts(engine, kind):
    for name in KINDS[kind].names():
        cls = KINDS[kind].load(name)
        for argument in (f.name for f in fields(cls) if not f.metadata.get("bound")):
            for value in SPECS:
                short(engine.explain, **{kind: f"{name}({argument}={value})"})


def test_prompts_and_messages(engine):
    for value in (*NUMBERS_GIVEN, *OTHERS_GIVEN):
        short(prepared, engine, value, max_new_tokens=4)
        short(engine.generate, [value, ""], max_new_tokens=1)
        short(prepared, engine, [{"role": "user", "content": value}])
        short(prepared, engine, [{"role": value, "content": "a"}])
        if isinstance(value, str | int | float | tuple):
            short(prepared, engine, [{value: "user", "content": "a"}])


@pytest.mark.parametrize(
    "name", ["max_rows", "unroll", "max_token_forwards", "kv_bytes", "prefix_bytes"]
)
def test_sizes_of_an_engine(engine, name):
    for value in NUMBERS_GIVEN:
        short(dlm.Engine, engine.model, engine.info, engine.text, **{name: value})


# halves of surrogate pairs


@pytest.mark.parametrize(
    ("prompt", "options", "param"),
    [
        (SURROGATE, {}, "prompt"),
        (["hello", SURROGATE], {}, "prompt[1]"),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": SURROGATE}], {},
         "messages[1].content"),
        ([{"role": SURROGATE, "content": "a"}], {}, "messages[0].role"),
        ([[{"role": "user", "content": SURROGATE}]], {}, "messages[0].content"),
        ("x", {"infill": f"{SURROGATE}[[mask:3]]"}, "infill"),
        ("x", {"infill": {2: SURROGATE}}, "infill[2]"),
        ("x", {"stop": SURROGATE}, "stop"),
        ("x", {"stop": ["a", dlm.StopString(SURROGATE)]}, "stop"),
        ("x", {"unmask": SURROGATE}, "unmask"),
        ("x", {"edit": [f"rcr({SURROGATE})"]}, "edit"),
        ("x", {"preset": SURROGATE}, "preset"),
        ("x", {"remasking": SURROGATE}, "remasking"),
    ],
)  # fmt: skip
def test_a_lone_surrogate_is_refused_by_the_name_of_its_place(engine, prompt, options, param):
    with pytest.raises(InvalidRequest) as refused:
        engine.generate(prompt, **options)
    assert refused.value.param == param
    assert str(refused.value).isprintable()
    assert engine.scheduler.live == 0


def test_whole_pairs_are_text(engine):
    assert engine.generate("a\U0001f600", max_new_tokens=2).prompt_ids


# what looks like a rule


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("max_nfe(5", "max_nfe(...)"), ("prophett", "prophet"), ("Prophet", "prophet"),
        ("EOS", "eos"), ("eoss", "eos"), ("eso", "eos"), ("max-nfe", "max_nfe"),
        ("max_nfe=5", "max_nfe(...)"), ("maxnfe", "max_nfe"), ("stabel", "stable"),
        ("max_second", "max_seconds"), ("nonee", "none"), ("prophet[1]", "prophet(...)"),
        (" prophet(7.5 ", "prophet(...)"),
    ],
)  # fmt: skip
def test_a_misspelled_stop_rule_is_no_text(engine, said, meant):
    with pytest.raises(InvalidRequest, match="StopString") as refused:
        engine.explain(stop=["\n", said])
    assert f"did you mean '{meant}'?" in refused.value.message
    assert engine.explain(stop=dlm.StopString(said))


@pytest.mark.parametrize(
    "text",
    ["\n", "one", "END", "def ", "print(", "f(x", "Q:", "stop", "</s>", "###", "the end", "max",
     "x = [", "profit", "stable diffusion"],
)  # fmt: skip
def test_texts_stay_texts(engine, text):
    assert repr(text) in str(engine.explain(stop=text))


@pytest.mark.parametrize(
    "text",
    ["[[mask 3]]", "[[Mask:3]]", "[[masks:3]]", "[[mask_3]]", "[[mask:3]", "[[ mask:3 ]]",
     "[mask:3]", "[[mask:-1]]", "[[MASK]]"],
)  # fmt: skip
def test_a_misspelled_hole_is_no_text(engine, text):
    with pytest.raises(InvalidRequest, match="a hole is written"):
        engine.explain(infill=f"so {text} it is [[mask:4]]")


@pytest.mark.parametrize(
    "text", ["x[mask:3]", "df[[mask_a, b]]", "[[masked]]", "[[0, 1]]", "[mask]"]
)
def test_brackets_of_other_kinds_are_text(engine, text):
    assert engine.explain(infill=f"{text} [[mask:4]]")


@pytest.mark.parametrize(
    "options", [{"use_cache": 0}, {"use_cache": "false"}, {"dual_cache": 1}, {"gen_length": "8"}]
)
def test_a_flag_of_the_reference_codes_is_no_number_and_no_text(engine, options):
    with pytest.raises(InvalidRequest) as refused:
        engine.explain(**options)
    assert refused.value.param == next(iter(options))


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"logit_bias": {4: 5.0}}, "logit_bias"),
        ({"guide": "forbid((4,))"}, "guide"),
        ({"guide": "bias(((4, 5.0),))"}, "guide"),
        ({"stop": "eos(ids=(4,))"}, "stop"),
        ({"unmask": "topk(demote=(4,))"}, "unmask"),
        ({"blocks": "adaptive(delimiters=(4,))"}, "blocks: delimiters"),
    ],
    ids=str,
)
def test_the_mask_is_refused_where_ids_of_answers_are_named(options, param):
    engine = dlm.load(device="cpu")
    assert engine.info.mask_id == 4
    with pytest.raises(dlm.InvalidRequest, match="is the mask") as caught:
        engine.generate([5], max_new_tokens=2, **options)
    assert caught.value.param == param
