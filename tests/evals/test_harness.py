"""lm-evaluation-harness over an engine: its command and the Python function, without a network."""

import json
import sys
from pathlib import Path

import pytest

import dlm
from dlm.errors import InvalidRequest
from dlm.evals.harness import Likelihood, evaluate, main
from dlm.evals.harness.arguments import read_arguments
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

pytest.importorskip("lm_eval", reason="needs lm-evaluation-harness: pip install dlm[harness]")

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
    free.templated = True
    (whole,) = free.generate_until(asked((contexts[0], task | {"until": "="})), disable_tqdm=True)
    assert whole == own[0]


def test_options_of_the_model_win_over_those_of_a_task(engine):
    model = DLM(engine, {"gen_length": 8, "unmask": "topk"})
    model.templated = True
    context = model.apply_chat_template([{"role": "user", "content": "Compute 3+5."}])
    model.generate_until(asked((context, {"max_gen_toks": 64, "until": []})), disable_tqdm=True)
    assert model.nfe <= 8
    with pytest.raises(InvalidRequest, match="num_beams"):
        model.generate_until(asked((context, {"num_beams": 3})), disable_tqdm=True)
    with pytest.raises(InvalidRequest, match="treshold"):
        DLM(engine, {"unmask": "treshold"})


def test_samples_of_one_context_differ_and_repeat(engine):
    context = DLM(engine).apply_chat_template([{"role": "user", "content": "Say a word."}])
    task = {"until": [], "max_gen_toks": 32, "do_sample": True, "temperature": 3.0}

    def drawn():
        model = DLM(engine, {"unmask": "topk"})
        model.templated = True
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
    with pytest.raises(InvalidRequest, match=r"`batch_size`: .*got 'many'"):
        read_arguments({"batch_size": "many"})


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
