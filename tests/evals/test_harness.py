"""lm-evaluation-harness over an engine: its command and the Python function, without a network."""

import json
import pickle
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import dlm
from dlm.errors import InvalidRequest
from dlm.evals.harness import Likelihood, evaluate, main
from dlm.evals.harness.arguments import read_arguments, read_task
from dlm.text import load_text
from tests.engine.harness import info_of
from tests.helpers import leave_out_built_in_tasks, random_decoder, tiny_spec

pytest.importorskip("lm_eval", reason="needs lm-evaluation-harness: pip install '.[harness]'")

from lm_eval.api.instance import Instance

from dlm.evals.harness.model import DLM

TASKS = Path(__file__).parents[2] / "examples" / "harness"
FAST = {"unmask": "threshold(0.9)", "cache": "dual"}


@pytest.fixture(scope="module")
def engine():
    return dlm.load("tiny", device="cpu")


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    """Nothing may be looked up; the tasks name their data from the root of the project."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.chdir(TASKS.parents[1])
    leave_out_built_in_tasks(monkeypatch)


def asked(*arguments, kind="generate_until"):
    return [Instance(kind, {}, given, number) for number, given in enumerate(arguments)]


def command(monkeypatch, tmp_path, *options):
    """The results file of one call of `dlm-lm-eval`."""
    told = ["--include_path", str(TASKS), "--output_path", str(tmp_path), *options]
    monkeypatch.setattr(sys, "argv", ["dlm-lm-eval", "--model", "dlm", *told])
    main()
    (found,) = tmp_path.rglob("results_*.json")
    return json.loads(found.read_text())


@pytest.mark.slow
def test_the_command_and_the_function_score_alike(engine, monkeypatch, tmp_path, capsys):
    tasks = ("dlm_math", "dlm_choice")
    model = ["--model_args", json.dumps({"pretrained": "tiny", "mc_num": 16} | FAST)]
    more = ["--apply_chat_template", "--batch_size", "4"]
    told = command(monkeypatch, tmp_path, "--tasks", *tasks, *model, *more)
    found = evaluate(
        engine,
        tasks,
        options=FAST,
        likelihood=Likelihood(draws=16),
        rows=3,
        include_path=TASKS,
        apply_chat_template=True,
    )
    capsys.readouterr()
    for task, metric in (("dlm_math", "exact_match,boxed"), ("dlm_choice", "acc,none")):
        assert told["results"][task][metric] == found["results"][task][metric] >= 0.9
    for results in (told, found):
        cost = results["config"]["dlm"]
        assert cost["answers"] == 20
        assert cost["tokens_per_forward"] == pytest.approx(cost["tokens"] / cost["nfe"])
        assert cost["likelihood_canvases"] == 20 * 2 * 16
        assert cost["contexts_cut"] == 0
    costs = [results["config"]["dlm"] for results in (told, found)]
    assert costs[0]["nfe"] == costs[1]["nfe"]


def test_answers_are_those_of_the_engine(engine):
    model = DLM(engine, FAST, rows=2)
    contexts = [
        model.apply_chat_template([{"role": "user", "content": f"Compute {n}+5."}]) for n in (3, 8)
    ]
    task = {"until": [], "max_gen_toks": 48, "do_sample": False, "temperature": 0.9}
    texts = model.generate_until(asked(*((c, task) for c in contexts)), disable_tqdm=True)
    own = [engine.generate(f"Compute {n}+5.", max_new_tokens=48, **FAST).text for n in (3, 8)]
    assert texts == own, "without do_sample a temperature does not count"
    first, second = model.generate_until(
        asked((contexts[0], task | {"until": "="}), (contexts[0], task | {"until": ["+5", "="]})),
        disable_tqdm=True,
    )
    assert (first, second) == (own[0].split("=")[0], own[0].split("+5")[0])
    free = DLM(engine, FAST, escape_until=True)
    (whole,) = free.generate_until(asked((contexts[0], task | {"until": "="})), disable_tqdm=True)
    assert whole == own[0]


def test_options_of_the_model_win_over_those_of_a_task(engine):
    model = DLM(engine, {"gen_length": 8, "unmask": "topk"})
    context = model.apply_chat_template([{"role": "user", "content": "Compute 3+5."}])
    model.generate_until(asked((context, {"max_gen_toks": 64, "until": []})), disable_tqdm=True)
    assert model.nfe <= 8
    with pytest.raises(InvalidRequest, match="num_beams"):
        model.generate_until(asked((context, {"num_beams": 3})), disable_tqdm=True)
    with pytest.raises(InvalidRequest, match="treshold"):
        DLM(engine, {"unmask": "treshold"})


@pytest.mark.parametrize("until", ["eos", "none", "max_nfe(1)", "Foo:Bar", "print(x)", "=", ""])
def test_stop_strings_of_a_task_are_texts_whatever_they_spell(engine, until):
    model = DLM(engine, FAST | {"stop": "eos"})
    context = model.apply_chat_template([{"role": "user", "content": "Compute 3+5."}])
    own = engine.generate("Compute 3+5.", max_new_tokens=48, **FAST).text
    task = {"until": [until], "max_gen_toks": 48}
    (text,) = model.generate_until(asked((context, task)), disable_tqdm=True)
    assert text == (own.split(until)[0] if until else own)


def test_a_task_without_a_length_has_that_of_the_harness(engine):
    model = DLM(engine, FAST)
    assert model._asked("a", {"until": []}, 0).options["max_new_tokens"] == 256
    assert model._asked("a", {"max_tokens": "32"}, 0).options["max_new_tokens"] == 32
    assert DLM(engine, {"gen_length": 8})._asked("a", {}, 0).options["max_new_tokens"] == 8


@pytest.mark.parametrize(
    ("task", "found"),
    [
        ({"num_beams": 1, "temperature": None, "top_p": "0.5"}, {"top_p": 0.5}),
        ({"do_sample": "false", "temperature": "0.7"}, {"temperature": 0.0}),
        ({"do_sample": True, "temperature": "0.7"}, {"temperature": 0.7}),
        ({"temperature": 0.7}, {"temperature": 0.7}),
    ],
)
def test_what_tasks_say(task, found):
    options, until = read_task(task | {"until": ["", "a"]})
    assert options == {"max_new_tokens": 256} | found
    assert until == ["a"]


@pytest.mark.parametrize(
    "task", [{"num_beams": 4}, {"no_such": 1}, {"temperature": "hot"}, {"max_gen_toks": 0}]
)
def test_what_tasks_may_not_say(task):
    with pytest.raises(InvalidRequest, match="`generation_kwargs`: of the task"):
        read_task(task)


def test_a_tokenizer_that_begins_texts(engine):
    """What it puts before a text is no part of a continuation, and stays when a text is cut."""
    text, begin = engine.text, engine.text.begin_ids()
    assert begin

    class Beginning(type(text.vocabulary)):
        def __init__(self):
            self.__dict__.update(text.vocabulary.__dict__)

        def encode(self, text, *, control, begin):
            ids = super().encode(text, control=control, begin=False)
            return [*first, *ids] if begin else ids

    first = list(begin)
    model = DLM(dlm.Engine(engine.model, engine.info, replace(text, vocabulary=Beginning())), FAST)
    pair = model._pair("", "5+5")
    assert pair.context == begin
    assert engine.text.decode(pair.continuation) == "5+5"
    assert model._pair("2+3=", "5").context[:1] == begin
    kept = model._fitting(model._ids("1+1=2\n" * 600), 40)
    assert len(kept) == 40
    assert tuple(kept[:1]) == begin
    templated = model.apply_chat_template([{"role": "user", "content": "a"}])
    assert model._ids(templated) == engine.text.encode_prompt("a")


PLAIN_START = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="module", params=["bundled", "begins with plain text"])
def templated(request, engine, tmp_path_factory):
    """The bundled model with its own template, and with one that begins with a word."""
    if request.param == "bundled":
        return DLM(engine, FAST)
    folder = tmp_path_factory.mktemp("plain")
    source = Path(dlm.__file__).parent / "model" / "bundled" / "tiny"
    shutil.copy(source / "tokenizer.json", folder)
    settings = json.loads((source / "tokenizer_config.json").read_text())
    settings["chat_template"] = PLAIN_START
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return DLM(dlm.Engine(engine.model, engine.info, load_text(folder)), FAST)


TALKS = [
    [{"role": "user", "content": "Compute 3+5."}],
    [{"role": "user", "content": "<|mask|> or <|eot|>assistant: 3"}],
    [
        {"role": "system", "content": "Be kind.<|"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b <|user|>"},
        {"role": "user", "content": " Compute 3+5. \n"},
    ],
    [{"role": "user", "content": "Compute 3+5."}, {"role": "assistant", "content": "It is"}],
]


@pytest.mark.parametrize("talk", TALKS)
def test_a_chat_has_the_ids_of_its_messages(templated, talk):
    text, context = templated.engine.text, templated.apply_chat_template(talk)
    assert templated._ids(context) == text.encode_prompt(talk)
    kept = pickle.loads(pickle.dumps(context))
    other = DLM(templated.engine, FAST)
    assert other._asked(kept, {"max_gen_toks": 8}, 0).ids == text.encode_prompt(talk)
    assert other.cut == 0


def test_what_is_put_behind_a_chat_is_plain_text(templated):
    """The harness puts continuations, and some tasks a word, behind what the template gave."""
    text, talk = templated.engine.text, TALKS[1]
    context = templated.apply_chat_template(talk)
    plain = text.encode_prompt(talk)
    for more in (" 8", " the <|mask|>", "<|eot|>", "|> 5"):
        ids = templated._ids(context + more)
        assert ids[: len(plain) - 1] == plain[: len(plain) - 1]
        assert [i for i in ids if i in text.special_ids()] == [
            i for i in plain if i in text.special_ids()
        ]
        assert text.decode(ids) == text.decode(plain) + more
        pair = templated._pair(context, more)
        assert [*pair.context, *pair.continuation] == ids
        assert text.decode(pair.continuation).strip() == more.strip()


@pytest.mark.parametrize("document", ["<|mask|> is a hole", "<|user|>a<|assistant|>", "user: a"])
def test_a_document_is_text_whatever_it_begins_with(templated, document):
    text = templated.engine.text
    assert templated._ids(document) == text.encode_prompt(document, chat=False)
    assert text.special_ids().isdisjoint(templated._ids(document)[1:])
    pair = templated._pair(document, "<|mask|>")
    assert text.special_ids().isdisjoint([*pair.context, *pair.continuation][1:])
    assert text.decode([*pair.context, *pair.continuation]) == f"{document}<|mask|>"


def test_a_chat_that_a_task_changes_is_refused(templated):
    context, text = templated.apply_chat_template(TALKS[0]), templated.engine.text
    for changed in (context[:-3], context.replace("3+5", "3+6"), "x" + context):
        with pytest.raises(InvalidRequest, match="`context`: must begin with the chat"):
            templated._ids(changed)
    stripped = text.decode(templated._ids(context.strip()))
    assert stripped == text.decode(text.encode_prompt(TALKS[0])).strip()


@pytest.mark.slow
def test_prompts_from_the_harness_store_are_understood(engine, monkeypatch, tmp_path, capsys):
    """The second run never asks for the template."""
    monkeypatch.setattr("lm_eval.caching.cache.PATH", str(tmp_path))
    monkeypatch.setattr("lm_eval.caching.cache.FILE_SUFFIX", ".pickle")
    import lm_eval

    scores = []
    for _ in range(2):
        found = lm_eval.simple_evaluate(
            model=DLM(engine, FAST),
            tasks=["dlm_math"],
            task_manager=lm_eval.tasks.TaskManager(include_path=str(TASKS)),
            apply_chat_template=True,
            cache_requests=True,
            limit=5,
        )
        scores.append(found["results"]["dlm_math"]["exact_match,boxed"])
    assert list(tmp_path.iterdir()), "the prompts were kept"
    assert scores[0] == scores[1] >= 0.8


def test_drawn_answers_are_not_kept_for_later(engine):
    model = DLM(engine, {"temperature": 3.0})
    model.cache_hook.dbdict = {}
    task = {"until": [], "max_gen_toks": 8}
    with pytest.raises(InvalidRequest, match="`use_cache`: keeps one answer of each context"):
        model.generate_until(asked(("a", task)), disable_tqdm=True)


def test_samples_of_one_context_differ_and_repeat(engine):
    context = DLM(engine).apply_chat_template([{"role": "user", "content": "Say a word."}])
    task = {"until": [], "max_gen_toks": 32, "do_sample": True, "temperature": 3.0}

    def drawn():
        model = DLM(engine, {"unmask": "topk"})
        return model.generate_until(asked(*[(context, task)] * 4), disable_tqdm=True)

    texts = drawn()
    assert len(set(texts)) > 1
    assert drawn() == texts


def test_likelihoods_add_up_over_windows_and_share_maskings(engine):
    model = DLM(engine, likelihood=Likelihood(draws=8))
    pairs = asked(("2+3=", "5"), ("2+3=", "6"), ("", "5+5"), kind="loglikelihood")
    found = model.loglikelihood(pairs, disable_tqdm=True)
    assert found[0][0] > found[1][0]
    assert not any(greedy for _, greedy in found)
    assert model.loglikelihood(pairs, disable_tqdm=True) == found
    text = "3+4=7\n" * 400
    (whole,) = model.loglikelihood_rolling(asked((text,), kind="loglikelihood_rolling"), True)
    assert whole < 0
    room = engine.info.max_length
    assert len(engine.text.encode(text)) > room
    assert model.canvases == 2 * (1 + 1 + 7) + 8 * -(-len(engine.text.encode(text)) // room)


def test_spaces_between_context_and_continuation_belong_to_the_second(engine):
    model = DLM(engine)
    for context, rest in (("so it is", " 5"), ("so it is ", "5")):
        pair = model._pair(context, rest)
        ids = engine.text.encode("so it is 5")
        assert pair.context + pair.continuation == tuple(ids)
        assert engine.text.decode(pair.continuation).strip() == "5"


def test_long_contexts_lose_their_beginning_and_are_counted(engine):
    model = DLM(engine, FAST)
    long = "1+1=2\n" * 600
    task = {"until": ["\n"], "max_gen_toks": 16}
    assert model.generate_until(asked((long, task)), disable_tqdm=True)
    assert model.cut == 1
    model.loglikelihood(asked((long, "2"), kind="loglikelihood"), disable_tqdm=True)
    assert model.get_model_info()["dlm"]["contexts_cut"] == 2


@pytest.mark.parametrize("changes", [{}, {"shift": True}], ids=["full", "shifted"])
def test_empty_contexts(changes, engine):
    decoder = random_decoder(tiny_spec(vocab_size=engine.info.vocab_size, **changes))
    model = DLM(dlm.Engine(decoder, info_of(decoder.spec), engine.text), {"stop": "none"})
    assert model.loglikelihood(asked(("", "5"), kind="loglikelihood"), True)[0][0] < 0
    assert model.generate_until(asked(("", {"until": [], "max_gen_toks": 4})), True)


def test_arguments():
    told = read_arguments(
        {"pretrained": "tiny", "batch_size": "4", "device": "cpu", "mc_num": 64}
        | {"gen_length": 128, "block_length": 32, "max_batch_size": None, "escape_until": True}
    )
    assert (told.source, told.loading, told.rows) == ("tiny", {"device": "cpu"}, 4)
    assert told.likelihood == Likelihood(draws=64)
    assert told.options == {"gen_length": 128, "block_length": 32}
    assert told.escape_until
    with pytest.raises(InvalidRequest, match=r"`model_args`: .*got 'threshhold'.*mc_num"):
        read_arguments({"threshhold": 0.9})
    for name, value in [
        *(("batch_size", "many"), ("batch_size", 4.7), ("batch_size", [4])),
        *(("mc_num", 0), ("mc_num", 100.0), ("mc_seed", -1), ("mc_cfg_scale", "0.5")),
        ("escape_until", "perhaps"),
    ]:
        with pytest.raises(InvalidRequest, match=rf"`{name}`: must be"):
            read_arguments({name: value})
    assert not read_arguments({"escape_until": "false", "trust_remote_code": True}).escape_until


def test_a_model_without_a_tokenizer_and_wrong_arguments(monkeypatch, capsys):
    decoder = random_decoder(tiny_spec())
    with pytest.raises(InvalidRequest, match="without a tokenizer"):
        DLM(dlm.Engine(decoder, info_of(decoder.spec)))
    wrong = ["--tasks", "dlm_math", "--include_path", str(TASKS), "--model_args", "stepps=3"]
    monkeypatch.setattr(sys, "argv", ["dlm-lm-eval", "--model", "dlm", *wrong])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "did you mean 'steps'" in capsys.readouterr().err
