"""Early commits: what is open is filled when the model has made up its mind."""

import pytest
import torch

import dlm
from dlm import Engine
from dlm.errors import InvalidRequest
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

PROMPT = (5, 9, 33, 12)
LENGTH = 16
MASK = tiny_spec().mask_id


def new_engine(**options):
    spec = tiny_spec()
    return Engine(random_decoder(spec), info_of(spec), **options)


def logits_of(engine, ids):
    """Clean logits without MASK, and the entropy with it, of one canvas."""
    logits = engine.logits(torch.tensor([ids]))[0].float()
    logp = torch.log_softmax(logits, dim=1)
    entropy = -(logp.exp() * logp).sum(dim=1)
    logp[:, MASK] = -torch.inf
    return logp, entropy


def decode(engine, decides):
    """One token a step on a whole canvas, until `decides(step, logp, entropy, open)` fills it."""
    ids = [*PROMPT, *[MASK] * LENGTH]
    still_open = set(range(len(PROMPT), len(ids)))
    steps = 0
    while still_open:
        logp, entropy = logits_of(engine, ids)
        c, token = logp.max(dim=1)
        steps += 1
        best = max(still_open, key=lambda p: (float(c[p]), -p))
        still_open -= {best}
        ids[best] = int(token[best])
        if decides(logp, entropy, token, still_open):
            for place in still_open:
                ids[place] = int(token[place])
            break
    return tuple(ids), steps


@pytest.mark.parametrize("unroll", [1, 3])
@pytest.mark.parametrize("gaps", [(3, 1, 0.8), (2, 0.9, 0.7), (1.2, 1.1, 0.9), (2, 1.7, 1.4)])
@pytest.mark.parametrize("answer", [(0, None), (3, 5)])
def test_prophet_fills_when_the_gap_is_large_enough(gaps, answer, unroll):
    """arXiv 2508.19982: the threshold falls with the progress; the answer's mean gap decides."""
    start, count = answer

    def decides(logp, entropy, token, still_open):
        best, second = logp.topk(2, dim=1).values.unbind(1)
        places = sorted(still_open)
        if count is not None:
            places = range(len(PROMPT) + start, len(PROMPT) + start + count)
        done = 1 - len(still_open) / LENGTH
        wanted = gaps[0] if done < 1 / 3 else gaps[1] if done < 2 / 3 else gaps[2]
        gap = [float(best[p] - second[p]) for p in places]
        return bool(gap) and sum(gap) / len(gap) >= wanted

    engine = new_engine(unroll=unroll)
    rule = f"prophet({gaps[0]}, {gaps[1]}, {gaps[2]}, {start}, {count})"
    options = {"unmask": "topk", "blocks": "whole", "stop": ["none", rule]}
    answer = engine.generate(PROMPT, max_new_tokens=LENGTH, **options)
    canvas, steps = decode(engine, decides)
    assert answer.canvas == canvas
    assert answer.stats.nfe == steps
    assert answer.finish_reason == ("early" if steps < LENGTH else "length")
    assert engine.kv.pages.in_use == 0


@pytest.mark.parametrize("unroll", [1, 3])
@pytest.mark.parametrize(("entropy", "patience"), [(3.8, 1), (3.9, 2), (9.0, 1), (9.0, 3), (0, 1)])
def test_stable_fills_when_nothing_changes_any_more(entropy, patience, unroll):
    history = []

    def decides(logp, entropies, token, still_open):
        same = bool(history) and all(int(token[p]) == history[-1][p] for p in still_open)
        history.append({p: int(token[p]) for p in still_open})
        runs.append(runs[-1] + 1 if same else 0)
        mean = sum(float(entropies[p]) for p in still_open) / max(1, len(still_open))
        return bool(still_open) and mean <= entropy and runs[-1] >= patience

    runs = [0]
    engine = new_engine(unroll=unroll)
    options = {"unmask": "topk", "blocks": "whole"}
    stop = ["none", f"stable({entropy}, {patience})"]
    answer = engine.generate(PROMPT, max_new_tokens=LENGTH, stop=stop, **options)
    canvas, steps = decode(engine, decides)
    assert answer.canvas == canvas
    assert answer.stats.nfe == steps


@pytest.mark.parametrize(
    ("said", "patience", "steps"),
    [("aab", 1, 2), ("ababcc", 1, 6), ("aabbb", 2, 5), ("aabbaaaa", 3, 8)],
)
def test_a_change_starts_the_wait_of_stable_anew(said, patience, steps):
    """Each letter is what the model says of all that is open in one step, from the first on."""
    engine, words = new_engine(), iter(said)

    def say(packed, kv):
        logits = torch.zeros(len(packed.logit_rows), tiny_spec().vocab_size)
        logits[:, ord(next(words)) - ord("a") + 10] = 20
        return logits

    engine.manager.model = say
    stop = ["none", f"stable(0.1, {patience})"]
    options = {"unmask": "topk", "blocks": "whole", "stop": stop}
    answer = engine.generate(PROMPT, max_new_tokens=LENGTH, **options)
    assert answer.stats.nfe == steps
    assert answer.finish_reason == "early"


def test_a_canvas_of_blocks_is_filled_block_by_block():
    engine = new_engine()
    options = {"max_new_tokens": LENGTH, "unmask": "topk", "blocks": "fixed(4)", "cache": "dual"}
    answer = engine.generate(PROMPT, **options, stop=["none", "prophet(0, 0, 0)"])
    everything = engine.generate(PROMPT, **options | {"unmask": "everything"}, stop="none")
    assert answer.stats.nfe == 4
    assert answer.canvas == everything.canvas
    assert answer.finish_reason == "early"


def test_the_end_rule_stays_beside_an_early_commit():
    engine = dlm.load("tiny", device="cpu")
    answer = engine.generate("Say the word lion four times.", unmask="topk", stop="prophet")
    slow = engine.generate("Say the word lion four times.", unmask="topk")
    assert answer.text == slow.text
    assert answer.finish_reason == "stop"
    assert answer.stats.nfe < slow.stats.nfe
    assert "Eos(" in str(engine.explain(stop="stable"))


def test_events_and_confidences_tell_what_was_filled():
    engine = new_engine()
    options = {"max_new_tokens": LENGTH, "unmask": "topk", "blocks": "whole", "trace": True}
    answer = engine.generate(PROMPT, **options, stop=["none", "prophet(0, 0, 0)"])
    commits = [event for event in answer.trace if event.type == "commit"]
    assert sorted(p for event in commits for p in event.pos) == list(range(4, 4 + LENGTH))
    assert all(0 < conf <= 1 for event in commits for conf in event.conf)
    assert [e.data["reason"] for e in answer.trace if e.type == "done"] == ["early"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop": "prophet(1.0, 2.0, 3.0)"}, "must be early >= middle >= late"),
        ({"stop": "prophet(count=0)"}, "`count` at least 1"),
        ({"stop": "stable(-1.0)"}, "`entropy` must be at least 0"),
        ({"stop": "stable(patience=0)"}, "`patience` must be at least 1"),
        ({"stop": "prophet", "unmask": "everything", "edit": "rcr"}, "before its edits are done"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(InvalidRequest, match=message):
        new_engine().submit(PROMPT, **options)


@pytest.mark.parametrize("blocks", ["whole", "sliding(4)", "fixed(8)"])
@pytest.mark.parametrize("stop", ["stable(99.0)", "prophet(0.0, 0.0, 0.0)"])
def test_a_row_does_not_end_while_what_no_step_has_shown_is_open(blocks, stop):
    out = new_engine().generate(
        PROMPT,
        max_new_tokens=32,
        blocks=blocks,
        unmask="topk",
        stop=["none", stop],
        cache="freecache('window', window=4)",
    )
    assert len(out.ids) == 32
    assert MASK not in out.canvas


def test_stable_looks_at_the_most_likely_tokens_not_at_drawn_ones():
    """What is open is drawn anew in each step; that does not change the model's mind."""
    engine, early = new_engine(), 0
    options = {"unmask": "topk('left')", "max_new_tokens": LENGTH, "stop": ["none", "stable(99.0)"]}
    for seed in range(12):
        out = engine.generate(PROMPT, temperature=3.0, seed=seed, **options)
        ids, before, expected = [*PROMPT, *[MASK] * LENGTH], None, LENGTH
        for place in range(LENGTH):
            best = logits_of(engine, ids)[0].argmax(dim=1).tolist()
            ids[len(PROMPT) + place] = out.canvas[len(PROMPT) + place]
            now = [best[p] for p, i in enumerate(ids) if i == MASK]
            if before is not None and now and before[1:] == now:
                expected = place + 1
                break
            before = now
        assert out.stats.nfe == expected
        early += expected < LENGTH
    assert early, "some row ends early"


@pytest.mark.parametrize("stop", ["stable(99.0)", "prophet(2.0, 1.0, 0.2)"])
@pytest.mark.parametrize("cache", ["none", "dual", "prefix"])
def test_a_block_whose_end_is_read_from_the_logits_is_filled_alone(stop, cache):
    """Where AdaBlock opens, the step shows more than the block that it then chooses."""
    engine = new_engine()
    delimiters = tuple(range(3, 60))
    for first in range(3, 13):
        out = engine.generate(
            (first, *PROMPT),
            max_new_tokens=24,
            blocks=f"adaptive(24, 1.0, 0.1, {delimiters})",
            stop=["none", stop],
            cache=cache,
        )
        assert MASK not in out.canvas


@pytest.mark.parametrize("stop", ["prophet(2, 1, 0.2)", "prophet(1.2, 1.1, 0.9)", "stable(2)"])
def test_batch_mates_with_wider_windows_change_nothing(stop):
    spec = tiny_spec(attention="block_causal", block_length=4)
    decoder, info = random_decoder(spec), info_of(spec)
    options = {"unmask": "low_entropy(0.45)", "stop": ["none", stop]}
    mix = [
        {"max_new_tokens": new, "blocks": f"fixed({block})", **options}
        for new, block in ((17, 8), (24, 4), (40, 16), (9, 4))
    ]
    for first in range(3, 9):
        prompts = [[first, *range(5, 5 + more)] for more in (4, 2, 6, 1)]
        pairs = list(zip(prompts, mix, strict=True))
        alone = [Engine(decoder, info).generate(prompt, **one) for prompt, one in pairs]
        engine = Engine(decoder, info)
        requests = [engine.submit(prompt, **one) for prompt, one in pairs]
        together = [request.result() for request in requests]
        assert [r.canvas for r in together] == [r.canvas for r in alone]
        assert [r.stats.nfe for r in together] == [r.stats.nfe for r in alone]
