"""What samplers that remask draw, on a joint distribution whose conditionals are known.

The model is exact for each position and independent across them, as all masked diffusion is; so the
distribution that a sampler has after any number of steps can be enumerated, too.
"""

import itertools
import math
from functools import cache

import pytest
import torch
from scipy.stats import chisquare

import dlm.unmasking.edit.remdm as module
from dlm.core import Kind, Proposal
from dlm.unmasking.edit.p2 import P2
from dlm.unmasking.edit.remdm import Psi, ReMDM
from dlm.unmasking.unmask.ancestral import Ancestral
from tests.unmasking.views import MASK, make_view

VOCAB, LENGTH, OPEN = 3, 3, 3  # an open position is id 3 in these tables
SAMPLES = 4000
EPS = 1e-3


@cache
def joint():
    """A joint distribution of strongly dependent tokens, `[3, 3, 3]`."""
    generator = torch.Generator().manual_seed(5)
    logits = 2.5 * torch.randn((VOCAB,) * LENGTH, generator=generator, dtype=torch.float64)
    return logits.flatten().softmax(0).view((VOCAB,) * LENGTH)


@cache
def conditionals(blunt=0.0):
    """`[64, 3, 3]`: of each state, positions by tokens, given what is not open.

    A `blunt` model knows less where more is open: so much of it, for each open position beyond the
    first, is the uniform distribution.
    """
    table = torch.zeros((OPEN + 1) ** LENGTH, LENGTH, VOCAB, dtype=torch.float64)
    for n, state in enumerate(itertools.product(range(OPEN + 1), repeat=LENGTH)):
        left = joint()
        for place, token in enumerate(state):
            keep = torch.tensor([token in (v, OPEN) for v in range(VOCAB)], dtype=torch.float64)
            left = left * keep.view([-1 if d == place else 1 for d in range(LENGTH)])
        for place in range(LENGTH):
            others = [d for d in range(LENGTH) if d != place]
            table[n, place] = left.sum(others) / left.sum()
        share = blunt * max(sum(token == OPEN for token in state) - 1, 0)
        table[n] = (1 - share) * table[n] + share / VOCAB
    return table


def number_of(state):
    base = torch.tensor([(OPEN + 1) ** (LENGTH - 1 - d) for d in range(LENGTH)])
    return (state * base).sum(-1)


def samples(rule, rows, steps):
    """`[rows, 3]`: the chain of a rule, its tokens drawn from the exact conditionals."""
    generator = torch.Generator().manual_seed(1)
    state = torch.full((rows, LENGTH), OPEN)
    conf, seeds = torch.zeros(rows, LENGTH), list(range(rows))
    for step in range(steps):
        probs = conditionals()[number_of(state)]
        flat = probs.reshape(-1, VOCAB)
        token = torch.multinomial(flat, 1, generator=generator).view(rows, LENGTH)
        c = probs.gather(2, token[..., None])[..., 0].float()
        view = make_view(
            rule,
            c.tolist(),
            token=token,
            ids=torch.where(state == OPEN, MASK, state),
            kind=torch.where(state == OPEN, int(Kind.MASK), int(Kind.COMMITTED)),
            step=step,
            masks=LENGTH,
            row_step=step,
            seed=seeds,
            conf_prev=conf,
        )
        if isinstance(rule, Ancestral):
            proposal = rule.propose(view)
        else:
            current = probs.gather(2, state.clamp_max(VOCAB - 1)[..., None])[..., 0].float()
            scored = view.window._replace(scored=view.window.valid)
            stats = view.stats._replace(prob_current=current)
            seen = view._replace(stats=stats, window=scored)
            proposal = rule.edit(seen, Proposal(view.eligible))
        remask = proposal.remask if proposal.remask is not None else torch.zeros_like(state).bool()
        filled = proposal.commit & ~remask
        conf = torch.where(filled, c, conf)
        state = torch.where(filled, token, torch.where(remask, OPEN, state))
    assert not bool((state == OPEN).any())
    return state


def exact(sigma_of, steps, blunt=0.0):
    """`[27]`: the distribution at the end, state by state. `sigma_of(alpha_s, alpha_t)`."""
    states = list(itertools.product(range(OPEN + 1), repeat=LENGTH))
    now = {state: float(all(x == OPEN for x in state)) for state in states}
    for i in range(steps):
        alpha_t, alpha_s = (1 - EPS) * i / steps, (1 - EPS) * (i + 1) / steps
        last = i == steps - 1
        sigma = 0.0 if last else sigma_of(alpha_s, alpha_t)
        fall = 1.0 if last else (alpha_s - (1 - sigma) * alpha_t) / (1 - alpha_t)
        then = dict.fromkeys(states, 0.0)
        for (n, state), p in zip(enumerate(states), now.values(), strict=True):
            if p == 0:
                continue
            ways = []
            for place, token in enumerate(state):
                if token == OPEN:
                    own = conditionals(blunt)[n, place].tolist()
                    ways.append([*(fall * x for x in own), 1 - fall])
                else:
                    ways.append([(1 - sigma) * (v == token) for v in range(VOCAB)] + [sigma])
            for target in states:
                then[target] += p * math.prod(ways[d][target[d]] for d in range(LENGTH))
        now = then
    return torch.tensor([p for state, p in now.items() if OPEN not in state], dtype=torch.float64)


def counts_of(state):
    return (
        number_of(state)
        .bincount(minlength=(OPEN + 1) ** LENGTH)
        .view([OPEN + 1] * LENGTH)[:VOCAB, :VOCAB, :VOCAB]
        .flatten()
    )


def largest(alpha_s, alpha_t):
    return 1.0 if alpha_t == 0 else min(1.0, (1 - alpha_s) / alpha_t)


def fits(counts, probs):
    """The p-value of a sample under probabilities; what is rare counts together."""
    n, common = int(counts.sum()), probs * counts.sum() >= 5
    found = [*counts[common].tolist(), int(counts[~common].sum())]
    shares = [*probs[common].tolist(), float(probs[~common].sum())]
    pairs = [(f, n * s) for f, s in zip(found, shares, strict=True) if s > 1e-12]
    expected = [e for _, e in pairs]
    scale = n / sum(expected)
    return float(chisquare([f for f, _ in pairs], [scale * e for e in expected]).pvalue)


RULES = {
    "ancestral": (lambda n: Ancestral(n), lambda s, t: 0.0),
    "cap": (lambda n: ReMDM("cap", 0.3, n), lambda s, t: min(0.3, largest(s, t))),
    "rescale": (lambda n: ReMDM("rescale", 0.7, n), lambda s, t: 0.7 * largest(s, t)),
    "psi": (
        lambda n: Psi(0.2, n, high=0.0, middle=1.0),
        lambda s, t: 0.8 * (1 - s),
    ),
}


@pytest.mark.parametrize("steps", [2, 5, 9])
@pytest.mark.parametrize("name", RULES)
def test_a_sampler_draws_what_enumeration_says(name, steps):
    make, sigma = RULES[name]
    found = counts_of(samples(make(steps), SAMPLES, steps))
    assert fits(found, exact(sigma, steps)) > 1e-3


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("falls", lambda t, s, sigma: 1 - s / t),  # what reopens is not made up for
        ("largest_sigma", lambda t, s: torch.ones_like(t)),  # nor could be
        ("sigma_of_kappa", lambda s, kappa: 1 - kappa * torch.ones_like(s)),
    ],
)
def test_a_wrong_sigma_is_found_out(monkeypatch, name, wrong):
    make, sigma = RULES["psi" if name == "sigma_of_kappa" else "rescale"]
    monkeypatch.setattr(module, name, wrong)
    found = counts_of(samples(make(9), 3 * SAMPLES, 9))
    assert fits(found, exact(sigma, 9)) < 1e-4


def test_what_reopening_is_good_for():
    """With an exact model the only error is what falls together, and reopening makes more of that.
    What a model has drawn that knew little is set right by drawing it again, given the rest.
    """
    truth = joint().flatten()

    def error(name, steps, blunt):
        return 0.5 * float((exact(RULES[name][1], steps, blunt) - truth).abs().sum())

    assert error("ancestral", 32, 0.0) < 0.5 * error("ancestral", 8, 0.0)
    assert error("ancestral", 32, 0.0) < error("cap", 32, 0.0) < error("cap", 8, 0.0)
    assert error("cap", 32, 0.3) < error("ancestral", 32, 0.3)
    assert error("psi", 32, 0.3) < error("ancestral", 32, 0.3)


@pytest.mark.parametrize("sigma", ["cap", "rescale", "conf", "loop"])
def test_all_rules_end_and_reopen_nothing_at_last(sigma):
    samples(ReMDM(sigma, 0.1, 8), 200, 8)
    samples(ReMDM(sigma, 0.1, 1), 50, 1)


def one(rule, kinds, c, conf, step, masks, seed=0):
    view = make_view(
        [rule] * 2000,
        [c] * 2000,
        kind=[kinds] * 2000,
        conf_prev=[conf] * 2000,
        step=step,
        masks=masks,
        row_step=step,
        seed=list(range(2000)),
    )
    return rule.edit(view, Proposal(view.eligible)), view


def test_confidence_shares_out_sigma():
    """By softmax(-confidence at the commit), of committed tokens; open ones fall as ancestral."""
    rule, done, is_open = ReMDM("conf", 1.0, 4), Kind.COMMITTED, Kind.MASK
    proposal, _ = one(rule, [done, done, is_open, is_open], [0.5] * 4, [0.1, 0.9, 0.0, 0.0], 1, 4)
    alpha_t, alpha_s = (1 - EPS) / 4, (1 - EPS) / 2
    weights = [math.exp(-0.1), math.exp(-0.9)]
    for place, weight in enumerate(weights):
        share = weight / sum(weights) * min(1.0, (1 - alpha_s) / alpha_t)
        assert float(proposal.remask[:, place].double().mean()) == pytest.approx(share, abs=0.05)
    fall = (alpha_s - alpha_t) / (1 - alpha_t)
    for place in (2, 3):
        assert float(proposal.commit[:, place].double().mean()) == pytest.approx(fall, abs=0.05)
        assert not bool(proposal.remask[:, place].any())


def seen(rule, c, kinds, current=0.01, **options):
    """A view of one row with logits everywhere."""
    view = make_view(rule, [c], kind=[kinds], **options)
    stats = view.stats._replace(prob_current=torch.tensor(current).expand(1, len(c)))
    return view._replace(stats=stats, window=view.window._replace(scored=view.window.valid))


@pytest.mark.parametrize(
    "rule", [ReMDM("rescale", 1.0, 6), Psi(0.0, 6, 0.0, 1.0), P2(6, 5.0)], ids=type
)
def test_given_positions_and_other_blocks_stay(rule):
    done, given, is_open = Kind.COMMITTED, Kind.PROMPT, Kind.MASK
    kinds = [given, done, done, given, is_open, is_open, done]
    touched = torch.zeros(7, dtype=torch.bool)
    for seed in range(50):
        view = seen(
            rule, [0.5] * 7, kinds, start=2, end=6, step=1, masks=6, length=8, prompt=1, seed=seed
        )
        remask = rule.edit(view, Proposal(view.eligible)).remask[0]
        touched |= remask & (view.kind[0] == Kind.COMMITTED)
    assert touched.tolist() == [False, False, True, False, False, False, False]


@pytest.mark.parametrize(
    ("eta", "expected"), [(0.0, [1, 2]), (0.5, [1, 2]), (1.0, [0, 2]), (9.0, [0, 2])]
)
def test_path_planning_by_hand(eta, expected):
    """Three of four are open and two stay so; the old token has 0.4, or 0.4 ** eta."""
    rule, done, is_open = P2(4, eta), Kind.COMMITTED, Kind.MASK
    view = seen(
        rule,
        [0.0, 0.5, 0.3, 0.6],
        [done, is_open, is_open, is_open],
        [0.4, 0.0, 0.0, 0.0],
        step=1,
        masks=4,
    )
    remask = rule.edit(view, Proposal(view.eligible)).remask
    assert remask[0].nonzero().ravel().tolist() == expected
