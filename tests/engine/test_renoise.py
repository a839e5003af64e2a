"""A uniform process: open positions hold noise and are told by their kind alone."""

import pytest
import torch

from dlm.config import GenerationConfig, bind
from dlm.core import Kind
from dlm.core.canvas import replay
from dlm.decode.iteration import IterationManager
from dlm.engine.row import RowState
from dlm.engine.scheduler import Scheduler
from dlm.model.kv_store import KVPool
from dlm.rng import uniforms
from tests.engine.harness import CPU, info_of
from tests.helpers import random_decoder, tiny_spec
from tests.rules.renoise import EntropyBound, Renoise

TOKENS, STEPS, VOCAB = 12, 6, 64


def noise(seed, pos, step):
    """The noise token of a position in a step, drawn one at a time."""
    key = (torch.tensor([n]) for n in (seed, 0))
    u = uniforms(*key, torch.tensor([[pos]]), torch.tensor([step]), 2)
    return int(u[0, 0] * VOCAB)


def twin(decoder, prompt, seed, bound):
    """The rule by the book, one row, greedy; the canvas after each step, until all is accepted."""
    length = len(prompt) + TOKENS
    canvas = list(prompt) + [noise(seed, i, -1) for i in range(len(prompt), length)]
    states = []
    for step in range(STEPS):
        logits = decoder.head(decoder.dense(torch.tensor([canvas])))[0]
        probs = logits.softmax(-1)
        entropy = {
            i: float(-(probs[i] * probs[i].clamp_min(1e-38).log()).sum())
            for i in range(len(prompt), length)
        }
        total, kept = 0.0, 0
        for i in sorted(entropy, key=lambda i: (entropy[i], i)):
            keep = total <= bound or step == STEPS - 1
            canvas[i] = int(probs[i].argmax()) if keep else noise(seed, i, step)
            total, kept = total + entropy[i], kept + keep
        states.append(list(canvas))
        if kept == TOKENS:
            break
    return states


@pytest.mark.parametrize("bound", [0.0, 0.6, 2.0, 100.0])
@pytest.mark.parametrize("seed", range(3))
def test_entropy_bound_with_renoising_equals_the_twin(bound, seed):
    spec = tiny_spec(mask_id=None)
    decoder, info = random_decoder(spec, seed), uniform_info(spec)
    scheduler = Scheduler(
        IterationManager(decoder, KVPool(spec, device=CPU, dtype=torch.float32), info, CPU),
        max_rows=4,
    )
    config = GenerationConfig(
        max_new_tokens=TOKENS,
        blocks="whole",
        unmask=EntropyBound(bound, STEPS),
        edit=Renoise(bound, STEPS),
        stop="none",
        seed=seed,
    )
    prompts = [(5, 9, 30), (7, 7, 8, 50, 2, 11)]
    states = [RowState(p, bind(config, info), 0) for p in prompts]
    for state in states:
        scheduler.submit(state)
    traces = [[] for _ in states]
    with torch.inference_mode():
        while not all(t.done for t in states):
            scheduler.step()
            for state, trace in zip(states, traces, strict=True):
                if state.ledger.nfe > len(trace):
                    trace.append(list(state.canvas.ids))
    for prompt, state, trace in zip(prompts, states, traces, strict=True):
        assert trace == twin(decoder, prompt, seed, bound)
        assert all(kind == Kind.COMMITTED for kind in state.canvas.kinds[len(prompt) :])
        assert replay(state.events)[0].ids == state.canvas.ids


def uniform_info(spec):
    """`info_of` for a model without a mask."""
    return info_of(tiny_spec()).__class__(
        "uniform", spec.vocab_size, None, spec.eos_ids, 0, spec.max_length
    )


def test_all_noise_events_occur():
    spec = tiny_spec(mask_id=None)
    info = uniform_info(spec)
    scheduler = Scheduler(
        IterationManager(
            random_decoder(spec, 1), KVPool(spec, device=CPU, dtype=torch.float32), info, CPU
        ),
        max_rows=4,
    )
    config = GenerationConfig(
        max_new_tokens=TOKENS,
        blocks="whole",
        unmask=EntropyBound(2.0, STEPS),
        edit=Renoise(2.0, STEPS),
        stop="none",
    )
    state = RowState((5, 9, 30), bind(config, info), 0)
    scheduler.submit(state)
    with torch.inference_mode():
        while not state.done:
            scheduler.step()
    assert {"commit", "remask", "replace", "renoise"} <= {e.type for e in state.events}
