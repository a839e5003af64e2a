"""The bundled model: a batch of mixed prompts against each prompt alone."""

import random

import pytest

import dlm
from dlm.evals.tasks import TASKS
from dlm.evals.tasks.mix import sample

CONFIGS = [
    {},
    {"cache": "dual"},
    {"unmask": "topk", "steps": 32},
    {"temperature": 0.7, "seed": 3},
    {"blocks": "adaptive", "cache": "dual"},
]


def test_sixteen_mixed_prompts_get_what_each_gets_alone():
    """Kernels round differently for other row counts; near-ties may fall either way, 1 in 500."""
    engine, rng = dlm.load(device="cpu"), random.Random(5)
    prompts = [sample(rng, "test", TASKS[i % len(TASKS)]).prompt for i in range(16)]
    different = []
    for config in CONFIGS:
        together = engine.generate(prompts, max_new_tokens=32, **config)
        for prompt, answer in zip(prompts, together, strict=True):
            alone = engine.generate(prompt, max_new_tokens=32, **config)
            if alone.canvas != answer.canvas:
                different.append((config, prompt))
    assert len(different) <= 1, different
    assert engine.kv.pages.in_use == 0


@pytest.mark.gpu
def test_a_gpu_gives_the_same_answers():
    """In float32; other kernels round differently, and near-ties may fall either way."""
    rng = random.Random(6)
    prompts = [sample(rng, "test", TASKS[i % len(TASKS)]).prompt for i in range(32)]
    here, there = (dlm.load(device=device, dtype="float32") for device in ("cpu", "cuda"))
    different = []
    for config in CONFIGS:
        ours, theirs = (e.generate(prompts, max_new_tokens=64, **config) for e in (here, there))
        for prompt, one, other in zip(prompts, ours, theirs, strict=True):
            if one.canvas != other.canvas:
                different.append((config, prompt))
    assert len(different) <= 2, different
    assert there.kv.pages.in_use == 0


@pytest.mark.parametrize("unroll", [1, 4])
def test_a_mixed_batch_of_configs_gets_what_each_gets_alone(unroll):
    engine = dlm.load(device="cpu", unroll=unroll)
    prompt = "Compute 12-5, 3*7, 8+6."
    requests = [engine.submit(prompt, max_new_tokens=48, **config) for config in CONFIGS[:4]]
    requests.append(engine.submit(prompt, max_new_tokens=48, blocks="adaptive"))
    found = [request.result().canvas for request in requests]
    alone = [
        dlm.load(device="cpu").generate(prompt, max_new_tokens=48, **config).canvas
        for config in [*CONFIGS[:4], {"blocks": "adaptive"}]
    ]
    assert found == alone
