"""Editors of a block against loops of their own over plain logits."""

import math

import pytest
import torch

from dlm import Engine
from dlm.errors import InvalidRequest
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

PROMPT = (5, 9, 33, 12, 40)
LENGTH, BLOCK = 19, 8


def new_engine(seed, attention="full"):
    block = {"attention": attention, "block_length": BLOCK} if attention != "full" else {}
    spec = tiny_spec(**block)
    return Engine(random_decoder(spec, seed=seed), info_of(spec)), spec.mask_id


class Loop:
    """A canvas that is decoded block by block: what each step reads, and what has changed."""

    def __init__(self, engine, mask, attention):
        self.engine, self.mask, self.attention = engine, mask, attention
        self.ids = [*PROMPT, *[mask] * LENGTH]
        self.forwards = self.edits = 0

    def blocks(self):
        first = len(PROMPT) // BLOCK * BLOCK if self.attention != "full" else len(PROMPT)
        for start in range(first, len(self.ids), BLOCK):
            yield range(start, min(start + BLOCK, len(self.ids)))

    def open(self, block):
        return [p for p in block if self.ids[p] == self.mask]

    def read(self, block):
        """Probabilities at each position of the block, and the best id but MASK with its own."""
        end = block.stop if self.attention != "full" else len(self.ids)
        logits = self.engine.logits(torch.tensor([self.ids[:end]]))[0]
        self.forwards += 1
        probs = {p: logits[p].softmax(dim=0).tolist() for p in block}
        best = {}
        for p, row in probs.items():
            token = max((i for i in range(len(row)) if i != self.mask), key=row.__getitem__)
            best[p] = token, row[token]
        return probs, best

    def reopen(self, positions):
        for p in positions:
            self.ids[p] = self.mask
        self.edits += len(positions)


def first_of(scores, count):
    return sorted(scores, key=lambda p: (-scores[p], p))[:count]


def decoded(engine, loop, **options):
    """The answer of the engine, which has to be that of the loop."""
    answer = engine.generate(PROMPT, max_new_tokens=LENGTH, stop="none", trace=True, **options)
    assert list(answer.canvas) == loop.ids
    assert answer.stats.nfe == loop.forwards
    assert answer.stats.changes.get("remask", 0) == loop.edits
    return answer


def targeted(engine, mask, attention, sure, detect, threshold, most, share, post):
    """T2M in LLaDA2.1's loop: a filled block is read again while something of it is reopened."""
    loop = Loop(engine, mask, attention)
    counts, last = dict.fromkeys(range(len(loop.ids)), 0), {}
    for block in loop.blocks():
        looks, given = 0, [p for p in block if p < len(PROMPT)]
        while True:
            is_open = loop.open(block)
            looks += not is_open
            if looks > post:
                break
            probs, best = loop.read(block)
            tokens = [p for p in block if p not in is_open and p not in given]
            now = {p: probs[p][loop.ids[p]] for p in tokens}
            doubt = {
                "low_prob": {p: threshold - now[p] for p in tokens},
                "other_sure": {
                    p: best[p][1] - threshold for p in tokens if best[p][0] != loop.ids[p]
                },
                "drop": {p: last.get(p, 0.0) - now[p] - threshold for p in tokens},
            }[detect]
            scores = {p: x for p, x in doubt.items() if x > 0 and counts[p] < most}
            again = first_of(scores, max(1, int(share * len(tokens))))
            passing = [p for p in is_open if best[p][1] > sure]
            new = passing or first_of({p: best[p][1] for p in is_open}, 1)
            last = now | {p: best[p][1] for p in new}
            for p in new:
                loop.ids[p] = best[p][0]
            loop.reopen(again)
            for p in again:
                counts[p] += 1
            if not is_open and not again:
                break
    return loop


@pytest.mark.parametrize("attention", ["full", "block_causal"])
@pytest.mark.parametrize(
    ("detect", "threshold", "most", "share", "post"),
    [
        ("low_prob", 0.3, 1, 0.25, 16),
        ("low_prob", 0.9, 3, 1.0, 16),
        ("low_prob", 0.9, 5, 0.5, 2),
        ("low_prob", 0.9, 5, 0.5, 0),
        ("other_sure", 0.1, 2, 0.5, 16),
        ("drop", 0.01, 2, 0.5, 16),
    ],
)
@pytest.mark.parametrize("sure", [0.2, 0.6])
def test_t2m_is_its_loop(attention, detect, threshold, most, share, post, sure):
    reopened = 0
    for seed in range(3):
        engine, mask = new_engine(seed, attention)
        loop = targeted(engine, mask, attention, sure, detect, threshold, most, share, post)
        blocks = "fixed" if attention != "full" else f"fixed({BLOCK})"
        edit = f"t2m({detect!r}, {threshold}, {most}, {share}, {post})"
        answer = decoded(engine, loop, unmask=f"dynamic({sure})", edit=edit, blocks=blocks)
        bound = LENGTH * (1 + 2 * most) + 1 + post * len(list(loop.blocks()))
        assert answer.stats.nfe <= bound
        reopened += loop.edits
    assert reopened


def backtracked(engine, mask, sure, least):
    """Saber's loop with a fixed threshold, or with the mean confidence of the block's tokens."""
    loop, last, confidence = Loop(engine, mask, "full"), {}, {}
    for block in loop.blocks():
        while is_open := loop.open(block):
            _, best = loop.read(block)
            tokens = [p for p in block if p not in is_open]
            bar = sure
            if sure is None:
                bar = math.fsum(confidence[p] for p in tokens) / len(tokens) if tokens else 1.0
            scores = {p: best[p][1] for p in is_open}
            new = {p for p in is_open if scores[p] > bar}
            new |= set(first_of(scores, 1 if sure is not None else 2))
            loss = {p: last.get(p, 0.0) - best[p][1] for p in tokens}
            last = {**last, **{p: best[p][1] for p in block}}
            for p in new:
                loop.ids[p], confidence[p] = best[p]
            if len(new) < len(is_open):
                count = min(max(least, math.ceil(len(new) / 8)), len(new) - 1)
                loop.reopen(first_of(loss, count))
    return loop


@pytest.mark.parametrize("least", [0, 1, 4])
@pytest.mark.parametrize("sure", [None, 0.35, 0.5])
def test_backtracking_is_its_loop(sure, least):
    reopened = 0
    for seed in range(4):
        engine, mask = new_engine(seed)
        loop = backtracked(engine, mask, sure, least)
        unmask = "running_mean" if sure is None else f"dynamic({sure})"
        decoded(engine, loop, unmask=unmask, edit=f"backtrack({least})", blocks=f"fixed({BLOCK})")
        reopened += loop.edits
    assert reopened or least == 0


def reranked(engine, mask, score, steps):
    """RCR: fill all, then reopen the tokens of the lowest score at their last commit."""
    loop, kept = Loop(engine, mask, "full"), {}
    block = range(len(PROMPT), len(loop.ids))
    for step in range(steps):
        is_open = loop.open(block)
        probs, best = loop.read(block)
        for p in is_open:
            row = [x for i, x in enumerate(probs[p]) if i != mask]
            first, second = sorted(row, reverse=True)[:2]
            entropy = -math.fsum(x * math.log(x) for x in probs[p] if x > 0)
            by = {"confidence": first, "margin": first - second, "entropy": -entropy}
            loop.ids[p], kept[p] = best[p][0], by[score]
        owed = LENGTH - (LENGTH - math.floor(LENGTH * (1 - (step + 1) / steps)))
        loop.reopen(first_of({p: -kept[p] for p in block}, owed))
    return loop


@pytest.mark.parametrize("steps", [3, 7, 19])
@pytest.mark.parametrize("score", ["confidence", "entropy", "margin"])
def test_rcr_ranks_by_each_score(score, steps):
    engine, mask = new_engine(5)
    loop = reranked(engine, mask, score, steps)
    options = {"unmask": "everything", "edit": f"rcr(score={score!r})", "steps": steps}
    answer = engine.generate(
        PROMPT, max_new_tokens=LENGTH, blocks="whole", cache="none", stop="none", **options
    )
    assert (list(answer.canvas), answer.stats.nfe) == (loop.ids, steps)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ("t2m('lowest')", "`detect` must be one of 'low_prob'"),
        ("t2m(threshold=1.5)", r"`threshold` must be in \[0, 1\], got 1.5"),
        ("t2m(share=-0.5)", r"`share` must be in \[0, 1\], got -0.5"),
        ("t2m(most=0)", "`most` must be at least 1, got 0"),
        ("t2m(post_steps=-1)", "`post_steps` must be at least 0, got -1"),
        ("backtrack(-1)", "`least` must be at least 0, got -1"),
        ("narrow_out(2.0)", r"`threshold` must be in \[0, 1\], got 2.0"),
        ("narrow_out(first=0)", "`first` must be at least 1, got 0"),
        ("rcr(score='random')", "`score` must be one of 'confidence'"),
    ],
)
def test_wrong_arguments_are_refused(edit, message):
    engine, _ = new_engine(0)
    with pytest.raises(InvalidRequest, match=message):
        engine.generate(PROMPT, edit=edit, max_new_tokens=8)


@pytest.mark.parametrize("edit", ["t2m", "backtrack", "narrow_out"])
def test_schedules_are_refused(edit):
    engine, _ = new_engine(0)
    with pytest.raises(InvalidRequest, match="has scheduled: use a rule without a schedule"):
        engine.generate(PROMPT, edit=edit, unmask="topk", steps=4, max_new_tokens=8)
