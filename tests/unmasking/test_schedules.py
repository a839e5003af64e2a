"""Transfer schedules against exact arithmetic."""

from fractions import Fraction
from itertools import pairwise
from math import floor

import pytest
import torch

from dlm.unmasking.schedules import curve_counts


def exact_counts(masks, steps, power):
    """MaskGIT's curve 1 - r^power: what is left of `masks` falls from step to step."""
    left = [floor(masks * (1 - Fraction(step, steps) ** power)) for step in range(steps + 1)]
    return [before - after for before, after in pairwise(left)]


@pytest.mark.parametrize(("schedule", "power"), [("linear", 1), ("power", 2), ("power", 3)])
def test_curves_are_exact_where_they_are_rational(schedule, power):
    """In floating point 5 * (1 - 4 / 5) is below 1, but 1 of 5 masks is left for the last step."""
    wrong = []
    for masks in range(1, 65):
        for steps in range(1, 65):
            table = torch.tensor([masks]), torch.arange(steps), torch.tensor([steps])
            counts = curve_counts(schedule, *table, float(power)).tolist()
            if counts != exact_counts(masks, steps, power):
                wrong.append((masks, steps))
    assert wrong == []
