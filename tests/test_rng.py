"""The keyed uniforms and the draw rule, against twins in plain Python and by their statistics."""

from fractions import Fraction
from itertools import accumulate

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from dlm.rng import CHUNK, draw, uniforms

WORD = 2**64
LAST = 1 - 2.0**-53  # the largest uniform
INT64 = st.integers(-(2**63), 2**63 - 1)


def twin_uniform(seed: int, path: int, pos: int, step: int, stream: int) -> float:
    """`uniforms` for one key, in Python integers."""
    row = seed + path * 0xD1B54A32D192ED03 + step * 0x8CB92BA72F3D8DD7
    row = (row + stream * 0xAEF17502108EF2D9) % WORD
    row = (row ^ row >> 32) * 0xFF51AFD7ED558CCD % WORD
    bits = (row + pos * 0x9E3779B97F4A7C15) % WORD
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 % WORD
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB % WORD
    return (bits >> 11) / 2**53


def twin_draw(probs: list[float], u: float) -> int:
    """The first token whose exact cumulative probability exceeds u * total."""
    ends = list(accumulate(map(Fraction, probs)))
    return next(token for token, end in enumerate(ends) if end > Fraction(u) * ends[-1])


def one_key(seed: int, path: int, pos: int, step: int, stream: int) -> float:
    keys = (torch.tensor([key]) for key in (seed, path))
    return uniforms(*keys, torch.tensor([[pos]]), torch.tensor([step]), stream).item()


def u_of(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# uniforms ---------------------------------------------------------------------------------------


@given(INT64, INT64, INT64, INT64, st.integers(-(2**70), 2**70))
@example(-(2**63), -(2**63), -(2**63), -(2**63), 2**64 - 1)
@example(2**63 - 1, 2**63 - 1, 2**63 - 1, 2**63 - 1, -1)
def test_uniforms_equal_the_twin(seed, path, pos, step, stream):
    assert one_key(seed, path, pos, step, stream) == twin_uniform(seed, path, pos, step, stream)


def test_the_hash_stays_as_it_is():
    """Seeds are a promise: results published with one must come out again."""
    assert [one_key(0, 0, pos, 0, 0) for pos in range(3)] == [
        0.0,
        0.8833108080428808,
        0.4315279970153666,
    ]
    assert one_key(42, 1, 7, 3, 2) == 0.8940574502329492


def test_shapes_broadcast_and_nothing_is_changed():
    seed, path, step = torch.tensor([5]), torch.tensor([0]), torch.tensor([2, 9])
    pos = torch.arange(8)
    before = [key.clone() for key in (seed, path, pos, step)]
    grid = uniforms(seed, path, pos, step, 1)
    assert (grid.shape, grid.dtype) == ((2, 8), torch.float64)
    assert grid.tolist() == [
        [twin_uniform(s, 0, p, t, 1) for p in range(8)] for s, t in ((5, 2), (5, 9))
    ]
    full = uniforms(seed.expand(2), path.expand(2), pos.expand(2, 8), step, 1)
    assert torch.equal(grid, full)
    assert all(map(torch.equal, before, (seed, path, pos, step)))


def test_uniforms_ignore_and_leave_the_global_generator():
    state = torch.get_rng_state()
    first = one_key(1, 2, 3, 4, 5)
    torch.manual_seed(7)
    assert one_key(1, 2, 3, 4, 5) == first
    torch.set_rng_state(state)


def key_grid(seeds=10, paths=5, steps=20, positions=50, streams=2) -> Tensor:
    """All keys of a small box, 10^5 by default: [stream, seed, path, step, pos]."""
    rows = torch.cartesian_prod(torch.arange(seeds), torch.arange(paths), torch.arange(steps))
    pos = torch.arange(positions)
    grid = [uniforms(*rows.T[:2], pos, rows.T[2], stream) for stream in range(streams)]
    return torch.stack(grid).view(streams, seeds, paths, steps, positions)


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    """Pearson's statistic in standard deviations above its mean."""
    degrees = counts.size - 1
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return (statistic - degrees) / (2 * degrees) ** 0.5


def test_no_two_keys_share_a_uniform():
    grid = key_grid()
    assert grid.numel() == 10**5
    assert grid.unique().numel() == grid.numel()
    assert grid.min() >= 0
    assert grid.max() < 1


@pytest.mark.parametrize("low_bits", [0, 20, 40], ids=lambda bits: f"from_bit_{bits}")
def test_uniforms_are_uniform(low_bits):
    fraction = (key_grid() * 2.0**low_bits).frac()
    counts = torch.histc(fraction, 256, 0, 1).numpy()
    assert abs(chi_square(counts, np.full(256, fraction.numel() / 256))) < 4


@pytest.mark.parametrize("axis", range(5), ids=["stream", "seed", "path", "step", "pos"])
def test_neighbouring_keys_are_uncorrelated(axis):
    grid = key_grid(8, 8, 16, 32, 4).movedim(axis, 0)
    one, other = grid[:-1].flatten().numpy(), grid[1:].flatten().numpy()
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / len(one) ** 0.5
    pairs, _, _ = np.histogram2d(one, other, bins=16, range=[[0, 1], [0, 1]])
    assert abs(chi_square(pairs, np.full((16, 16), len(one) / 256))) < 4


@pytest.mark.parametrize("changed", range(4), ids=["seed", "path", "pos", "step"])
def test_each_key_bit_flips_half_of_the_result(changed):
    keys = torch.arange(4 * 512).view(4, 512)
    bits = torch.ones(64, dtype=torch.int64) << torch.arange(64)
    flipped = keys[:, None].repeat(1, 64, 1)
    flipped[changed] ^= bits[:, None]

    def top(keys: Tensor) -> Tensor:
        seed, path, pos, step = keys.flatten(1)
        return (uniforms(seed, path, pos[:, None], step, 0) * 2**32).long().flatten()

    difference = top(flipped) ^ top(keys[:, None].expand(4, 64, 512))
    rate = ((difference[:, None] >> torch.arange(32)) & 1).double().view(64, 512, 32).mean((1, 2))
    assert (rate - 0.5).abs().max() < 0.02


# draw -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vocab", [1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 1500])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_draw_equals_the_exact_inverse_cdf(vocab, dtype):
    generator = torch.Generator().manual_seed(vocab)
    probs = (torch.randn(40, vocab, generator=generator) * 3).softmax(-1).to(dtype)
    u = torch.rand(40, dtype=torch.float64, generator=generator)
    expected = [twin_draw(row, x) for row, x in zip(probs.tolist(), u.tolist(), strict=True)]
    assert draw(probs, u).tolist() == expected


def test_draw_is_strict_at_every_border():
    """With dyadic weights all sums are exact: a uniform on a border belongs to the next token."""
    vocab = 2 * CHUNK
    probs = torch.full((vocab, vocab), 1 / vocab)
    u = torch.arange(vocab, dtype=torch.float64) / vocab
    assert torch.equal(draw(probs, u), torch.arange(vocab))
    below = torch.nextafter(u, u_of(-1.0))[1:]
    assert torch.equal(draw(probs[1:], below), torch.arange(vocab - 1))


@pytest.mark.parametrize("vocab", [1, CHUNK, CHUNK + 5, 4 * CHUNK])
def test_one_hot_draws_its_token(vocab):
    hot = torch.arange(0, vocab, max(1, vocab // 97))
    probs = torch.zeros(len(hot), vocab)
    probs[range(len(hot)), hot] = 0.3
    for u in (0.0, 2.0**-53, 0.5, LAST):
        assert torch.equal(draw(probs, u_of(u).expand(len(hot))), hot)


def test_extreme_uniforms_take_the_first_and_last_token_with_mass():
    vocab = 3 * CHUNK + 10
    probs = torch.zeros(1, vocab)
    probs[0, CHUNK + 3 : 2 * CHUNK + 7] = 0.001
    assert draw(probs, u_of(0.0)).item() == CHUNK + 3
    assert draw(probs, u_of(LAST)).item() == 2 * CHUNK + 6


@pytest.mark.parametrize("small", [1e-30, 1e-17, 1e-7])
@pytest.mark.parametrize("border", [CHUNK - 1, CHUNK, 2 * CHUNK - 1, 2 * CHUNK])
def test_zeros_at_chunk_borders_are_never_drawn(border, small):
    """Masses that vanish next to larger ones, and zeros where rounding pushes a target."""
    vocab = 2 * CHUNK + 100
    probs = torch.full((1, vocab), small, dtype=torch.float64)
    probs[0, ::3] = 1 / 3
    probs[0, border - 2 : border + 3] = 0
    probs[0, -40:] = 0
    u = torch.linspace(0, LAST, 4001, dtype=torch.float64)
    tokens = draw(probs.expand(len(u), vocab), u)
    assert (probs[0, tokens] > 0).all()
    assert (tokens.diff() >= 0).all(), "the inverse of a cumulative distribution is monotone"


@given(data=st.data(), vocab=st.integers(1, 1100), u=st.floats(0, LAST))
@settings(max_examples=200)
def test_a_token_without_probability_is_never_drawn(data, vocab, u):
    scale = st.sampled_from([1e-40, 1e-20, 1e-9, 1e-3, 0.1, 1.0])
    mass = st.lists(st.tuples(st.integers(0, vocab - 1), scale), min_size=1, max_size=30)
    probs = torch.zeros(1, vocab)
    for token, value in data.draw(mass):
        probs[0, token] = value
    us = u_of(u, 0.0, LAST, data.draw(st.floats(LAST - 2**-50, LAST)))
    tokens = draw(probs.expand(4, vocab), us)
    assert (probs[0, tokens] > 0).all()
    assert tokens[1] == probs[0].nonzero()[0]
    ends = [0.0, *(float(end) for end in accumulate(map(Fraction, probs[0].tolist())))]
    for token, x in zip(tokens.tolist(), us.tolist(), strict=True):
        slack = 1e-13 * ends[-1]  # only a near-tie may differ from the exact rule
        assert ends[token] - slack <= x * ends[-1] < ends[token + 1] + slack


def test_a_scan_that_drifts_draws_no_zeros(monkeypatch):
    """Parallel scans sum in other orders: their results may rise or fall where nothing is added."""
    cumsum = torch.Tensor.cumsum

    def drifting(mass: Tensor, dim: int) -> Tensor:
        ulps = (torch.arange(mass.shape[dim]) % 5 - 2).double()
        return cumsum(mass, dim) * (1 + ulps * 2.0**-52)

    monkeypatch.setattr(torch.Tensor, "cumsum", drifting)
    probs = torch.zeros(4 * CHUNK)
    probs[10 : CHUNK - 10 : 7] = 1.0
    probs[2 * CHUNK :: 3] = 1.0
    ends = probs.double().cumsum(0) / probs.sum()
    near = 1 + torch.arange(-6, 7).double() * 2.0**-53
    u = (ends[:, None] * near).clamp(0, LAST).unique()
    assert (probs[draw(probs.expand(len(u), -1), u)] > 0).all()


def test_a_row_without_mass_leaves_the_others_alone():
    probs = torch.zeros(3, 700)
    probs[1, 600] = 1.0
    assert draw(probs, u_of(0.0, 0.5, 0.5)).tolist() == [0, 600, 0]


def test_draws_follow_the_distribution():
    weights = torch.rand(600, generator=torch.Generator().manual_seed(3)) + 0.1
    rows = 50_000
    u = uniforms(torch.tensor([9]), torch.tensor([0]), torch.arange(rows), torch.tensor([0]), 0)[0]
    tokens = torch.cat([draw(weights.expand(len(part), -1), part) for part in u.split(10_000)])
    counts = tokens.bincount(minlength=600).numpy()
    expected = (weights.double() / weights.double().sum() * rows).numpy()
    assert abs(chi_square(counts, expected)) < 4


@pytest.mark.parametrize("vocab", [CHUNK, 1000, 40 * CHUNK])
@pytest.mark.parametrize("threads", [1, 2])
def test_rows_do_not_influence_each_other(vocab, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        generator = torch.Generator().manual_seed(vocab)
        probs = torch.randn(64, vocab, generator=generator).mul(2).softmax(-1)
        u = torch.rand(64, dtype=torch.float64, generator=generator)
        together = draw(probs, u)
        alone = torch.cat([draw(p, x) for p, x in zip(probs.split(1), u.split(1), strict=True)])
        order = torch.randperm(64, generator=generator)
        assert torch.equal(together, alone)
        assert torch.equal(together[order], draw(probs[order], u[order]))
        assert torch.equal(together, draw(probs.T.contiguous().T, u)), "whatever the strides"
    finally:
        torch.set_num_threads(before)


def test_draw_takes_no_rows():
    assert draw(torch.zeros(0, 600), u_of()).shape == (0,)


def test_draw_changes_none_of_its_arguments():
    probs, u = torch.rand(4, CHUNK), torch.rand(4, dtype=torch.float64)
    before = probs.clone(), u.clone()
    draw(probs, u)
    assert torch.equal(before[0], probs)
    assert torch.equal(before[1], u)


@pytest.mark.gpu
def test_cuda_gives_the_same_uniforms_and_draws():
    generator = torch.Generator().manual_seed(0)
    keys = torch.randint(-(2**62), 2**62, (3, 32), generator=generator)
    pos = torch.randint(0, 10**6, (32, 16), generator=generator)
    u = uniforms(*keys[:2], pos, keys[2], 1)
    on_cuda = uniforms(*keys[:2].cuda(), pos.cuda(), keys[2].cuda(), 1)
    assert torch.equal(u, on_cuda.cpu())
    for vocab in (1000, 126_464):
        probs = torch.randn(512, vocab, generator=generator).mul(3).softmax(-1)
        device_probs, device_u = probs.cuda(), on_cuda.flatten()
        together = draw(device_probs, device_u)
        assert (together.cpu() != draw(probs, u.flatten())).sum() == 0
        alone = [draw(p, x) for p, x in zip(device_probs.split(1), device_u.split(1), strict=True)]
        assert torch.equal(together, torch.cat(alone))
