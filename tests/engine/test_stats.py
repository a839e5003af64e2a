"""Statistics of logit rows and the draw of tokens, against a float64 textbook."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm.decode.sampling import CHUNK, SMALL, Sampler, draw_tokens, row_stats, token_uniforms
from tests.engine.costs import NEEDS, report, timed

MASK = 5
ALL = frozenset({"entropy", "margin", "logit_margin", "prob_current"})
NUMBERS = st.one_of(st.integers(-3, 3), st.integers(-160, 160)).map(lambda n: n / 8)
ROWS = st.lists(st.lists(NUMBERS, min_size=9, max_size=9), min_size=1, max_size=5)
SHARE = 3e-6  # the normaliser is float32: beyond 16 it is exact to 1e-6, and so is what it divides
WIDE = (CHUNK - 1, SMALL, SMALL + 1, SMALL + CHUNK, SMALL + CHUNK + 7)


def textbook(row):
    """Probabilities of a list of logits."""
    top = max(row)
    weights = [math.exp(x - top) for x in row]
    return [w / sum(weights) for w in weights]


@given(ROWS, st.integers(0, 8))
def test_row_stats(rows, current):
    stats = row_stats(torch.tensor(rows), MASK, ALL, torch.full((len(rows),), current))
    for n, row in enumerate(rows):
        probs = textbook(row)
        others = sorted((x for i, x in enumerate(row) if i != MASK), reverse=True)
        assert stats.token[n] == next(i for i, x in enumerate(row) if x == others[0] and i != MASK)
        assert float(stats.confidence[n]) == pytest.approx(probs[row.index(others[0])], abs=SHARE)
        entropy = -sum(p * math.log(p) for p in probs if p > 0)
        assert float(stats.entropy[n]) == pytest.approx(entropy, abs=1e-5)
        gap = probs[row.index(others[0])] - probs[row.index(others[1])]
        assert float(stats.margin[n]) == pytest.approx(gap, abs=SHARE)
        assert float(stats.prob_current[n]) == pytest.approx(probs[current], abs=SHARE)
        logit_gap = others[0] - others[1]
        assert float(stats.logit_margin[n]) == pytest.approx(logit_gap, abs=1e-5)
        assert float(stats.logsumexp[n]) == pytest.approx(
            math.log(sum(map(math.exp, row))), abs=1e-5
        )


@pytest.mark.parametrize("size", WIDE)
@pytest.mark.parametrize("mask", [None, 0, 5, CHUNK - 2, "last"])
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.02, 0.9]), st.sampled_from([1, 40]))
@settings(max_examples=20)
def test_rows_of_many_chunks(size, mask, seed, forbidden, scale):
    """Few different logits, so that equals stand in several chunks; some are struck out."""
    mask = size - 1 if mask == "last" else mask
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(-4, 5, (3, size), generator=generator).float() * scale
    logits[torch.rand(3, size, generator=generator) < forbidden] = -math.inf
    logits[:, 1:3] = logits[:, 1:3].nan_to_num(neginf=0.0)
    before = logits.clone()
    stats = row_stats(logits, mask, ALL, torch.tensor([1, 2, 1]))
    assert logits.equal(before), "what is read stays as it is"
    exact = torch.log_softmax(logits.double(), dim=1)
    shares = exact.exp()
    entropy = -(shares * exact.nan_to_num(neginf=0.0)).sum(dim=1)
    assert stats.entropy.double().allclose(entropy, atol=1e-4)
    open_ids = logits.clone()
    if mask is not None:
        open_ids[:, mask] = -math.inf
    for n, row in enumerate(open_ids.tolist()):
        best = row.index(max(row))
        second = max(x for i, x in enumerate(row) if i != best)
        assert int(stats.token[n]) == best
        assert float(stats.confidence[n]) == pytest.approx(float(shares[n, best]), rel=1e-5)
        assert float(stats.logit_margin[n]) == pytest.approx(row[best] - second, abs=1e-4)
        margin = float(shares[n, best]) - math.exp(second - float(stats.logsumexp[n]))
        assert float(stats.margin[n]) == pytest.approx(margin, abs=1e-5)
        wanted = float(shares[n, 1 if n != 1 else 2])
        assert float(stats.prob_current[n]) == pytest.approx(wanted, rel=1e-4, abs=1e-30)


def test_no_rows_and_logits_that_are_no_numbers():
    for size in (9, SMALL + 1):
        none = row_stats(torch.empty(0, size), MASK, ALL, torch.empty(0).long())
        assert none.token.shape == none.entropy.shape == (0,)
        logits = torch.zeros(2, size)
        logits[1, size - 2] = math.nan
        stats = row_stats(logits, MASK, frozenset({"entropy"}))
        assert stats.confidence.isnan().tolist() == [False, True]


def test_confidence_keeps_the_mask_in_the_denominator():
    logits = torch.zeros(1, 9)
    logits[0, MASK], logits[0, 7] = 4.0, 2.0
    stats = row_stats(logits, MASK, frozenset())
    assert stats.token.tolist() == [7]
    expected = math.exp(2) / (math.exp(4) + math.exp(2) + 7)
    assert float(stats.confidence) == pytest.approx(expected, rel=1e-6)


def test_the_lowest_id_wins_ties():
    logits = torch.zeros(2, 9)
    logits[1, 3:] = 1.0
    assert row_stats(logits, MASK, frozenset()).token.tolist() == [0, 3]


def test_only_what_is_needed_is_computed():
    stats = row_stats(torch.zeros(1, 9), MASK, frozenset({"margin"}))
    assert stats.entropy is None
    assert stats.prob_current is None
    assert stats.margin is not None
    plain = row_stats(torch.zeros(1, 9), MASK, frozenset())
    assert plain.margin is plain.logit_margin is plain.entropy is None


def test_forbidden_ids_have_no_share():
    """Guides forbid by -inf, which must not turn the entropy into NaN."""
    logits = torch.tensor([[0.0, 0.0, -math.inf, 0.0]])
    stats = row_stats(logits, 3, ALL, torch.tensor([2]))
    assert float(stats.confidence) == pytest.approx(1 / 3)
    assert float(stats.entropy) == pytest.approx(math.log(3))
    assert float(stats.prob_current) == 0


def sampler(temperature, top_p=1.0, top_k=0):
    """One row's settings; numbers or lists."""
    rows = [torch.as_tensor(v).reshape(-1) for v in (temperature, top_p, top_k)]
    size = max(len(r) for r in rows)
    temperature, top_p, top_k = (r.expand(size) for r in rows)
    return Sampler(temperature.float(), top_p.float(), top_k, filters=True)


def draws(row, sampled, count=20_000):
    """Counts of the ids that many seeds draw from one row of logits, and the last stats."""
    stats = row_stats(torch.tensor([row]).expand(count, -1), MASK, frozenset())
    seeds, zero = torch.arange(count), torch.zeros(count, dtype=torch.long)
    u = token_uniforms(seeds, zero, torch.full((count, 1), 17), zero)[:, 0]
    drawn = draw_tokens(stats, MASK, sampled, zero, u)
    return torch.bincount(drawn.token, minlength=len(row)).tolist(), drawn


LOGITS = [1.0, 2.0, -1.0, 0.5, 0.0, 3.0, 1.9, -2.0, 1.2]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_draws_follow_the_tempered_distribution_without_the_mask(temperature):
    counts, drawn = draws(LOGITS, sampler(temperature))
    open_ids = [i for i in range(9) if i != MASK]
    probs = dict(zip(open_ids, textbook([LOGITS[i] / temperature for i in open_ids]), strict=True))
    assert counts[MASK] == 0
    total = sum(counts)
    expected = {i: total * p for i, p in probs.items()}
    tested = [i for i in open_ids if expected[i] >= 5]
    chi_square = sum((counts[i] - expected[i]) ** 2 / expected[i] for i in tested)
    freedom = len(tested) - 1
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom)
    clean = textbook(LOGITS)  # the confidence is that of temperature 1
    for token, c in zip(drawn.token[:50].tolist(), drawn.confidence[:50].tolist(), strict=True):
        assert c == pytest.approx(clean[token], abs=1e-6)


def allowed(row, temperature, top_p, top_k):
    """The ids that remain: best first, until their mass reaches top_p, at most top_k."""
    ids = sorted((i for i in range(len(row)) if i != MASK), key=lambda i: (-row[i], i))
    probs = textbook([row[i] / temperature for i in ids])
    kept, mass = [], 0.0
    for i, p in zip(ids, probs, strict=True):
        if kept and (mass >= top_p or (top_k and len(kept) == top_k)):
            break
        kept.append(i)
        mass += p
    return set(kept), [p for _, p in zip(kept, probs, strict=False)]


@pytest.mark.parametrize("temperature", [0.5, 1.0])
@pytest.mark.parametrize(
    ("top_p", "top_k"), [(0.01, 0), (0.6, 0), (0.9, 0), (1.0, 1), (1.0, 3), (0.9, 2), (0.3, 4)]
)
def test_filters_keep_the_best_of_the_tempered_distribution(temperature, top_p, top_k):
    counts, _ = draws(LOGITS, sampler(temperature, top_p, top_k), 4000)
    kept, probs = allowed(LOGITS, temperature, top_p, top_k)
    assert {i for i, n in enumerate(counts) if n} == kept
    most = max(counts) / sum(counts)
    assert most == pytest.approx(probs[0] / sum(probs), abs=0.04)


def test_filters_keep_the_lowest_ids_of_equals():
    counts, _ = draws([0.0] * 9, sampler(1.0, 1.0, 2), 2000)
    assert {i for i, n in enumerate(counts) if n} == {0, 1}


def test_each_row_draws_by_its_own_settings():
    """A greedy row among warm ones, and rows that draw as they would alone."""
    rows = torch.randn(60, 9, generator=torch.Generator().manual_seed(0))
    owner = torch.arange(60) // 20
    sampled = sampler([0.0, 0.8, 1.5], [1.0, 0.7, 1.0], [0, 0, 3])
    u = torch.rand(60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    stats = row_stats(rows.clone(), MASK, frozenset())
    together = draw_tokens(stats, MASK, sampled, owner, u)
    assert together.token[:20].equal(stats.token[:20])
    assert together.confidence[:20].equal(stats.confidence[:20])
    assert not together.token[20:].equal(stats.token[20:])
    for row in range(3):
        part = slice(20 * row, 20 * row + 20)
        alone = draw_tokens(
            row_stats(rows[part].clone(), MASK, frozenset()),
            MASK,
            sampled.select(torch.tensor([row])),
            torch.zeros(20, dtype=torch.long),
            u[part],
        )
        assert alone.token.equal(together.token[part])


def test_uniforms_differ_by_seed_path_position_and_step():
    def one(seed=0, path=0, pos=3, step=0):
        row = [torch.tensor([x]) for x in (seed, path)]
        return float(token_uniforms(*row, torch.tensor([[pos]]), torch.tensor([step])))

    assert len({one(), one(seed=1), one(path=1), one(pos=4), one(step=1)}) == 5
    assert one() == one()


def test_the_table_of_costs_has_every_rule():
    told = report((2, SMALL + 1), 8, 1)
    assert all(f"  {name} " in told for name in timed())
    assert told.count("\n") == len(NEEDS) + 1 + len(timed())
