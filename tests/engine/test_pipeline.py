"""Two and more pipelined blocks against a twin that recomputes everything in every step."""

import pytest
import torch

from dlm import Engine
from dlm.config import GenerationConfig, bind
from dlm.decode.iteration import IterationManager
from dlm.engine.row import RowState
from dlm.engine.scheduler import Scheduler
from dlm.model.kv_store import KVPool
from tests.engine.harness import CPU, info_of
from tests.helpers import block_mask, random_decoder, tiny_spec
from tests.rules.reopening import ReopensFirst

BLOCK, TOKENS = 4, 24


def by_threshold(threshold):
    """What is sure; in a block that must go on, else the surest."""

    def choose(blocks):
        return {
            i for probs, _ in blocks for i, p in probs.items() if float(p[:-1].max()) >= threshold
        }

    return choose


def by_entropy(threshold):
    """What is certain; if no block that must go on has any, the most certain of them all."""

    def choose(blocks):
        entropy = {
            i: float(-(p.clamp_min(1e-38) * p.clamp_min(1e-38).log()).sum())
            for probs, _ in blocks
            for i, p in probs.items()
        }
        must = [i for probs, full in blocks if full for i in probs]
        chosen = {i for i, h in entropy.items() if h <= threshold}
        if must and chosen.isdisjoint(must):
            chosen.add(min(must, key=lambda i: (entropy[i], i)))
        return chosen

    return choose


RULES = {f"threshold({x})": by_threshold(x) for x in (0.2, 0.35, 0.5, 0.7)}
RULES["low_entropy(0.6)"] = by_entropy(0.6)


def twin(decoder, prompt, add, full, choose, mask_id):
    """D2F by the book: lists of blocks, dense forwards, no cache; canvases after each step."""
    canvas = list(prompt) + [mask_id] * TOKENS
    length = -(-len(canvas) // BLOCK) * BLOCK
    canvas += [mask_id] * (length - len(canvas))
    is_open = [i >= len(prompt) for i in range(length)]
    first = len(prompt) // BLOCK * BLOCK
    blocks = [dict(start=first, end=first + BLOCK, full=True)]
    states = []
    while blocks:
        end = blocks[-1]["end"]
        ids = torch.tensor([canvas[:end]])
        logits = decoder.head(decoder.dense(ids, block_mask(end, BLOCK)))[0]
        offered = []
        for block in blocks:
            block.setdefault("masks", sum(is_open[block["start"] : block["end"]]))
            at = [i for i in range(block["start"], block["end"]) if is_open[i]]
            offered.append(({i: logits[i].softmax(-1) for i in at}, block["full"]))
        chosen = choose(offered)
        for probs, must in offered:
            best = {i: float(p[:mask_id].max()) for i, p in probs.items()}  # MASK is the last id
            if must and probs and chosen.isdisjoint(probs):
                chosen.add(max(probs, key=lambda i: (best[i], -i)))
        for probs, _ in offered:
            for i in chosen & probs.keys():
                canvas[i], is_open[i] = int(probs[i][:mask_id].argmax()), False
        states.append(list(canvas))
        for block in blocks:
            left = sum(is_open[block["start"] : block["end"]])
            block["left"], block["done"] = left, 1 - left / max(1, block["masks"])
        front, share = blocks[-1]["end"], blocks[-1]["done"]
        while blocks and blocks[0]["left"] == 0:
            blocks.pop(0)
        for before, block in zip([None, *blocks], blocks, strict=False):
            block["full"] = block["full"] or before is None or before["done"] >= full
        if front < length and (not blocks or share >= add):
            ready = not blocks or share >= full
            blocks.append(dict(start=front, end=front + BLOCK, full=ready))
    return states


def run(decoder, spec, prompts, cache, spec_string, unmask):
    info = info_of(spec)
    kv = KVPool(spec, device=CPU, dtype=torch.float32)
    scheduler = Scheduler(IterationManager(decoder, kv, info, CPU), max_rows=8)
    options = {
        "max_new_tokens": TOKENS,
        "blocks": spec_string,
        "unmask": unmask,
        "cache": cache,
        "stop": "none",
    }
    bound = bind(GenerationConfig.from_options(options), info)
    states = [RowState(tuple(p), bound, 0) for p in prompts]
    for state in states:
        scheduler.submit(state)
    traces = [[] for _ in states]
    with torch.inference_mode():
        while not all(t.done for t in states):
            live = [not t.done for t in states]
            scheduler.step()
            for state, trace, ran in zip(states, traces, live, strict=True):
                if ran:
                    trace.append(list(state.canvas.ids))
    kv.pages.check_integrity()
    assert kv.pages.in_use == 0
    return traces, states


SHARES = [(0.1, 0.95), (0.5, 0.75), (0.0, 1.0), (1.0, 1.0)]


@pytest.mark.parametrize("cache", ["none", "block_causal"])
@pytest.mark.parametrize(("add", "full"), SHARES)
@pytest.mark.parametrize("unmask", RULES)
def test_pipelined_blocks_equal_the_twin(cache, add, full, unmask):
    seed = (SHARES.index((add, full)) + [*RULES].index(unmask)) % 3  # of the model's weights
    spec = tiny_spec(attention="block_causal", block_length=BLOCK)
    decoder = random_decoder(spec, seed)
    prompts = [list(range(3, 3 + n)) for n in (1, 5, 8, 11)]
    spec_string = f"pipeline(add={add}, full={full})"
    traces, states = run(decoder, spec, prompts, cache, spec_string, unmask)
    for prompt, mine in zip(prompts, traces, strict=True):
        expected = twin(decoder, prompt, add, full, RULES[unmask], spec.mask_id)
        assert mine == expected
    if cache == "block_causal" and add < 1:
        assert any(t.ledger.forwards["store step"] for t in states)


def test_a_pipeline_keeps_several_blocks_live_and_never_a_ninth():
    spec = tiny_spec(attention="block_causal", block_length=BLOCK)
    decoder = random_decoder(spec, 0)
    info = info_of(spec)
    kv = KVPool(spec, device=CPU, dtype=torch.float32)
    scheduler = Scheduler(IterationManager(decoder, kv, info, CPU), max_rows=8)
    options = {"max_new_tokens": 64, "blocks": "pipeline(add=0.0)", "unmask": "threshold(1.0)"}
    config = GenerationConfig.from_options({**options, "stop": "none"})
    state = RowState((5, 6, 7), bind(config, info), 0)
    scheduler.submit(state)
    most = 0
    with torch.inference_mode():
        while not state.done:
            scheduler.step()
            if scheduler.live:
                ((group, _),) = scheduler._live.groups
                most = max(most, int(group.rows.host.blocks.live.sum()))
    assert most == 8


def test_in_order_a_pipeline_that_waits_is_plain_blocks():
    spec = tiny_spec(attention="block_causal", block_length=BLOCK)
    decoder = random_decoder(spec, 4)
    prompts = [[5, 6, 7]]
    waits, _ = run(
        decoder, spec, prompts, "block_causal", "pipeline(add=1.0, full=1.0)", "threshold(0.6)"
    )
    plain, _ = run(decoder, spec, prompts, "block_causal", "fixed", "threshold(0.6)")
    assert waits == plain


def test_a_row_ends_with_the_block_of_its_end_id_though_later_ones_are_open():
    spec = tiny_spec(attention="block_causal", block_length=BLOCK)
    engine = Engine(random_decoder(spec), info_of(spec))
    options = {"max_new_tokens": 48, "unmask": "threshold(0.5)", "blocks": "pipeline(add=0.1)"}
    full = engine.generate((5, 9, 33, 12), **options, stop="none")
    end = full.ids[3]
    cut = engine.generate((5, 9, 33, 12), **options, stop=f"eos('block', ({end},), True)")
    assert cut.finish_reason == "stop"
    assert cut.ids == full.ids[: full.ids.index(end)]
    assert cut.stats.nfe < full.stats.nfe / 2


@pytest.mark.parametrize("at", range(1, 14))
@pytest.mark.parametrize("unmask", ["everything", "threshold(0.2)"])
def test_what_is_reopened_before_an_opening_block_is_filled_again(unmask, at):
    engine = Engine(random_decoder(tiny_spec()), info_of(tiny_spec()))
    answer = engine.generate(
        (5, 9, 33, 12),
        max_new_tokens=16,
        unmask=unmask,
        blocks="pipeline(4, add=0.5)",
        cache="dual(on_edit='requery')",
        edit=ReopensFirst(at),
        stop="none",
    )
    assert len(answer.ids) == 16
