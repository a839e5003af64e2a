"""Noising processes: each posterior is Bayes' rule, and Psi steps of masked diffusion are ReMDM."""

import itertools

import pytest
import torch

from dlm.core.process import Absorbing, Uniform
from dlm.unmasking.edit.remdm import falls, largest_sigma, sigma_of_kappa

VOCAB, MASK = 5, 4
LEVELS = [(0.9, 0.1), (0.5, 0.49), (1.0, 0.3), (0.2, 0.0), (0.75, 0.5)]  # alpha_s, alpha_t
PROCESSES = [Absorbing(MASK), Uniform(VOCAB)]


def noised(process, there, stays):
    """The probability of each id when a token `there` stays with probability `stays`."""
    out = [0.0] * VOCAB
    for v in range(VOCAB):
        fresh = 1.0 / VOCAB if isinstance(process, Uniform) else float(v == MASK)
        out[v] = stays * (v == there) + (1 - stays) * fresh
    return out


def bayes(process, here, token, alpha_s, alpha_t):
    """q(x_s | x_t = here, x_0 = token), from the two noising steps; None where x_t cannot be."""
    first = noised(process, token, alpha_s)
    joint = [first[v] * noised(process, v, alpha_t / alpha_s)[here] for v in range(VOCAB)]
    total = sum(joint)
    return [x / total for x in joint] if total > 1e-15 else None


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize(("alpha_s", "alpha_t"), LEVELS)
def test_the_posterior_is_bayes_rule(process, alpha_s, alpha_t):
    tokens = range(VOCAB) if isinstance(process, Uniform) else range(MASK)
    for here, token in itertools.product(range(VOCAB), tokens):
        expected = bayes(process, here, token, alpha_s, alpha_t)
        if expected is None:
            continue
        x0 = torch.zeros(VOCAB, dtype=torch.float64)
        x0[token] = 1.0
        found = process.posterior(torch.tensor(here), x0, alpha_s, alpha_t)
        assert found.tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize(("alpha_s", "alpha_t"), LEVELS)
def test_steps_of_a_batch_are_distributions_and_compose(process, alpha_s, alpha_t):
    """They sum to one for any prediction; from the forward process of one token at time t the
    posterior leads to that at time s.
    """
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(3, 7, VOCAB, generator=generator, dtype=torch.float64)
    x0[..., MASK] *= isinstance(process, Uniform)
    x0 = x0 / x0.sum(-1, keepdim=True)
    ids = torch.randint(0, VOCAB, (3, 7), generator=generator)
    found = process.posterior(ids, x0, torch.full((3, 1), alpha_s), alpha_t)
    assert torch.allclose(found.sum(-1), torch.ones(3, 7, dtype=torch.float64), atol=1e-12)
    assert bool((found >= 0).all())
    assert torch.allclose(process.forward(x0, alpha_s).sum(-1), torch.tensor(1.0).double())
    token = torch.eye(VOCAB, dtype=torch.float64)[2]
    now = process.forward(token, alpha_t)
    steps = process.posterior(torch.arange(VOCAB), token.expand(VOCAB, -1), alpha_s, alpha_t)
    assert torch.allclose(now @ steps, process.forward(token, alpha_s), atol=1e-12)


def transitions(fall, sigma, x0):
    """Per-position transition probabilities `[ids at t, ids at s]` of a remasking step."""
    table = torch.zeros(VOCAB, VOCAB, dtype=torch.float64)
    for v in range(MASK):
        table[v, v], table[v, MASK] = 1 - sigma, sigma
        table[MASK, v] = fall * x0[v]
    table[MASK, MASK] = 1 - fall
    return table


@pytest.mark.parametrize("kappa", [0.0, 0.3, 0.95, 1.0])
@pytest.mark.parametrize(("alpha_s", "alpha_t"), LEVELS)
def test_psi_is_remdm(kappa, alpha_s, alpha_t):
    """Every transition probability of every state of three positions, exactly."""
    process = Absorbing(MASK)
    predictions = torch.tensor(
        [[0.1, 0.2, 0.3, 0.4, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0], [0.25, 0.25, 0.5, 0.0, 0.0]],
        dtype=torch.float64,
    )
    everything = torch.arange(VOCAB)
    mixed = []
    for x0 in predictions:
        posterior = process.posterior(everything, x0.expand(VOCAB, -1), alpha_s, alpha_t)
        is_mask = (everything == MASK)[:, None]
        clean = torch.where(is_mask, x0, torch.eye(VOCAB, dtype=torch.float64))
        mixed.append(kappa * posterior + (1 - kappa) * process.forward(clean, alpha_s))
    t, s = (torch.tensor(1 - level, dtype=torch.float64) for level in (alpha_t, alpha_s))
    sigma = sigma_of_kappa(s, kappa)
    assert float(sigma) == pytest.approx((1 - kappa) * (1 - alpha_s))
    assert 0 <= float(sigma) <= float(largest_sigma(t, s)) + 1e-12
    fall = float(falls(t, s, sigma))
    assert fall == pytest.approx((alpha_s - (1 - float(sigma)) * alpha_t) / (1 - alpha_t))
    single = [transitions(fall, float(sigma), x0) for x0 in predictions]
    for before in itertools.product(range(VOCAB), repeat=3):
        ours, theirs = (
            torch.einsum("i,j,k->ijk", *(m[n][before[n]] for n in range(3)))
            for m in (single, mixed)
        )
        assert float((ours - theirs).abs().max()) < 1e-12
    wrong = transitions(fall, 1 - kappa, predictions[0])
    assert kappa == 1 or alpha_s == 0 or not torch.allclose(wrong, mixed[0])


@pytest.mark.parametrize("rule", ["cap", "rescale", "most"])
def test_as_many_are_open_as_the_schedule_says(rule):
    """A position is open with probability s after each step, whatever sigma is."""
    steps, is_open, wrong = 12, 1.0, 1.0
    for i in range(steps - 1):
        t, s = (torch.tensor([1 - n / steps], dtype=torch.float64) for n in (i, i + 1))
        most = largest_sigma(t, s)
        sigma = {"cap": most.clamp_max(0.3), "rescale": 0.5 * most, "most": most}[rule]
        fall = float(falls(t, s, sigma))
        assert 0 <= fall <= 1 + 1e-12
        is_open = is_open * (1 - fall) + (1 - is_open) * float(sigma)
        assert is_open == pytest.approx(float(s))
        wrong = wrong * float(s / t) + (1 - wrong) * float(sigma)
    assert wrong > 1.2 * float(s), "the share of ancestral sampling alone would not do"
