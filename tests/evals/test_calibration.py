"""Measures of probabilities against closed forms and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.errors import InvalidRequest
from dlm.evals.calibration import (
    Record,
    calibration,
    ece,
    fit_temperature,
    tempered,
    with_temperature,
)

SURE = [Record([0.9, 0.1], 0), Record([0.2, 0.8], 1), Record([0.6, 0.4], 1)]


def test_measures_of_three_records_by_hand():
    found = calibration(SURE)
    assert (found.n, found.accuracy) == (3, 2 / 3)
    assert found.brier == pytest.approx((2 * 0.1**2 + 2 * 0.2**2 + 2 * 0.6**2) / 3)
    assert found.nll == pytest.approx(-(math.log(0.9) + math.log(0.8) + math.log(0.4)) / 3)
    assert found.ece == pytest.approx((0.1 + 0.2 + 0.6) / 3)  # each in a bin of its own


def test_bins_join_confidences_of_one_width():
    assert ece([0.91, 0.93], [True, False], bins=10) == pytest.approx(abs(1 - 1.84) / 2)
    assert ece([0.91, 0.95], [True, True], bins=20) == pytest.approx((0.09 + 0.05) / 2)
    assert ece([1.0, 1.0], [True, True]) == 0


def drawn(n, spread, temperature, labels=4, seed=0):
    """Records whose labels are drawn from a distribution, which is then told too boldly."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, (n, labels))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    right = [int(rng.choice(labels, p=row)) for row in true]
    told = np.exp(logits / temperature)
    told /= told.sum(1, keepdims=True)
    return [Record(list(row), label) for row, label in zip(told, right, strict=True)]


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_of_a_miscalibrated_model_is_found(temperature):
    records = drawn(4000, 2.0, temperature)
    fitted = fit_temperature(records)
    assert fitted == pytest.approx(1 / temperature, rel=0.1)
    before, after = calibration(records), calibration(with_temperature(records, fitted))
    assert after.ece < 0.03
    assert after.nll <= before.nll
    assert after.accuracy == before.accuracy


def test_the_temperature_is_the_best_of_a_grid():
    records = drawn(300, 1.0, 0.5, seed=3)
    best = min(
        (calibration(with_temperature(records, t)).nll, t) for t in np.exp(np.linspace(-3, 3, 200))
    )
    assert calibration(with_temperature(records, fit_temperature(records))).nll <= best[0] + 1e-6


@given(
    st.lists(st.floats(1e-6, 1), min_size=2, max_size=8),
    st.floats(0.05, 20),
)
def test_tempered_is_a_distribution_in_the_same_order(weights, temperature):
    p = [w / sum(weights) for w in weights]
    found = tempered(p, temperature)
    assert math.isclose(sum(found), 1, rel_tol=1e-9)
    assert all(
        found[i] >= found[j] - 1e-12 for i in range(len(p)) for j in range(len(p)) if p[i] > p[j]
    )
    assert tempered(p, 1.0) == pytest.approx(p, abs=1e-9)


def test_records_must_be_there_and_name_a_label():
    for function in (calibration, fit_temperature):
        with pytest.raises(InvalidRequest, match="records"):
            function([])
        with pytest.raises(InvalidRequest, match="right"):
            function([Record([0.5, 0.5], 2)])
