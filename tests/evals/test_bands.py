"""Bands of the bundled checkpoint, and the notes beside tables."""

import json

from dlm.evals.bands import BANDS, FILE, missed, read_figures, verdicts
from dlm.evals.items import bundled_items


def test_every_band_is_of_rungs_that_the_test_sets_have():
    for band in BANDS:
        rungs = {item.rung for item in bundled_items(band.task, "test")}
        assert set(band.rungs) <= rungs, band
        assert 0 <= band.low < band.high <= 100


def test_verdicts_are_balanced_over_the_rungs():
    figures = {"judge right": (90, 100), "judge near-miss": (50, 200), "math hard": (50, 100)}
    found = {v.band.name: v for v in verdicts(figures)}
    assert found["judge right/near-miss"].reached == (90 + 25) / 2
    assert not found["judge right/near-miss"].kept
    assert found["math hard"].kept
    assert found["math easy"].reached is None
    assert missed(figures, "judge") == ["judge right/near-miss: 58%, band 75-100%"]
    assert missed(figures, "math") == [
        "math easy: not measured, band 85-100%",
        "math medium: not measured, band 55-100%",
        "math crowded: not measured, band 20-90%",
    ]
    assert missed(figures, "drill") == []


def test_figures_are_read_from_the_checkpoint(tmp_path):
    assert read_figures(tmp_path) is None
    (tmp_path / FILE).write_text(json.dumps({"math hard": [3, 9]}))
    assert read_figures(tmp_path) == {"math hard": (3, 9)}
