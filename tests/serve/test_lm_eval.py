"""lm-evaluation-harness' own clients of a running server, on a local task, without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

lm_eval = pytest.importorskip("lm_eval", reason="needs lm-eval: pip install '.[harness]'")

from lm_eval.tasks import TaskManager  # noqa: E402  (after the check)
from lm_eval.utils import RemoteTokenizer, check_remote_tokenizer_support  # noqa: E402

TASKS = Path(__file__).parents[2] / "examples" / "harness"


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    """Nothing may be looked up; the tasks name their data from the root of the project."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.chdir(TASKS.parents[1])


def score(server, model, path, *, chat, **arguments):
    """The share of right answers, and the texts of all, of eight problems."""
    found = lm_eval.simple_evaluate(
        model=model,
        model_args={
            "model": "tiny",
            "base_url": f"{server.v1}/{path}",
            "max_length": 1024,
            "max_retries": 1,
            **arguments,
        },
        tasks=["dlm_math"],
        limit=8,
        apply_chat_template=chat,
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        log_samples=True,
    )
    samples = found["samples"]["dlm_math"]
    texts = {s["doc"]["question"]: s["resps"][0][0] for s in samples}
    return found["results"]["dlm_math"]["exact_match,boxed"], texts


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 4])
def test_talks(server, engine, at_once):
    share, texts = score(
        server, "local-chat-completions", "chat/completions", chat=True, num_concurrent=at_once
    )
    wanted = {q: engine.generate(q, max_new_tokens=96).text for q in texts}
    assert texts == wanted
    assert share >= 0.75


@pytest.mark.slow
@pytest.mark.parametrize("ids", [True, False])
def test_texts(server, engine, ids):
    """As ids of the server's tokenizer, four at a time, or as they are."""
    _, texts = score(
        server,
        "local-completions",
        "completions",
        chat=False,
        tokenized_requests=ids,
        batch_size=4,
    )
    for question, text in texts.items():
        prompt = engine.text.encode_prompt(question, chat=False)
        assert text == engine.generate(prompt, max_new_tokens=96).text


def test_the_tokenizer_of_the_server(server, engine):
    base = f"{server.v1}/completions"
    assert check_remote_tokenizer_support(base)
    remote = RemoteTokenizer(base)
    text = "12+5=17, 日本"
    assert remote.encode(text) == engine.text.encode(text)
    assert remote.decode(remote.encode(text)) == text
    assert remote.eos_token_id == engine.info.eos_ids[0]
    talk = [{"role": "user", "content": "12+5=?"}]
    rendered = remote.apply_chat_template(talk)
    assert rendered == engine.text.render(talk)
    assert tuple(remote.encode(rendered)) == tuple(engine.text.encode_prompt(talk))


def test_options_of_dlm_pass_through(server, engine):
    """`gen_kwargs` reach the body as they are."""
    found = lm_eval.simple_evaluate(
        model="local-chat-completions",
        model_args={"model": "tiny", "base_url": f"{server.v1}/chat/completions"},
        tasks=["dlm_math"],
        limit=1,
        apply_chat_template=True,
        gen_kwargs={"dlm": {"preset": "quality"}, "max_gen_toks": 64},
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        log_samples=True,
    )
    (sample,) = found["samples"]["dlm_math"]
    own = engine.generate(sample["doc"]["question"], max_new_tokens=64, preset="quality").text
    assert sample["resps"][0][0] == own


@pytest.mark.slow
@pytest.mark.parametrize(("at_once", "batch"), [(1, 3), (4, 1)])
def test_log_likelihoods(server, engine, at_once, batch):
    """Those of both choices of each problem, and the accuracy, are those of `engine.score`."""
    found = lm_eval.simple_evaluate(
        model="local-completions",
        model_args={
            "model": "tiny",
            "base_url": f"{server.v1}/completions",
            "max_length": 1024,
            "max_retries": 1,
            "num_concurrent": at_once,
            "batch_size": batch,
        },
        tasks=["dlm_choice"],
        limit=4,
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        log_samples=True,
    )
    right = 0
    for sample in found["samples"]["dlm_choice"]:
        own = []
        for pair, ((logprob, greedy),) in zip(sample["arguments"], sample["resps"], strict=True):
            context, choice = pair
            before = engine.text.encode(context)
            answer = engine.text.encode(context + choice)[len(before) :]
            local = engine.score(before, answer)
            assert float(logprob) == pytest.approx(local.logprob, abs=1e-3)
            assert greedy == local.greedy
            own.append(local.logprob)
        right += own.index(max(own)) == sample["doc"]["label"]
    assert found["results"]["dlm_choice"]["acc,none"] == right / 4
