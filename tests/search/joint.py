"""A model of six tokens whose joint distribution is known, and the targets that searches aim at."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from random import Random
from typing import Any

VOCAB, LENGTH = 4, 6

Canvas = tuple[int | None, ...]
Answer = tuple[int, ...]
Reward = Callable[[Answer], float]


class Tabular:
    """The joint `p(x) ~ exp(sum of random energies of single tokens and of pairs)`.

    `sharpness` is the standard deviation of the energies.
    """

    def __init__(self, seed: int = 0, sharpness: float = 0.9) -> None:
        rng = Random(seed)
        singles = [[rng.gauss(0, sharpness) for _ in range(VOCAB)] for _ in range(LENGTH)]
        pairs = {
            (a, b): [[rng.gauss(0, sharpness) for _ in range(VOCAB)] for _ in range(VOCAB)]
            for b in range(LENGTH)
            for a in range(b)
        }
        self._mass: dict[Canvas, float] = {}
        for x in answers():
            energy = sum(singles[at][x[at]] for at in range(LENGTH))
            energy += sum(table[x[a]][x[b]] for (a, b), table in pairs.items())
            self._mass[x] = math.exp(energy)
        self.total = sum(self._mass.values())
        self.joint = {x: self._mass[x] / self.total for x in answers()}
        self._known: dict[tuple[Canvas, int, float], tuple[tuple[float, ...], ...]] = {}

    def mass(self, canvas: Canvas) -> float:
        """The weight of all answers that a canvas can become."""
        if canvas not in self._mass:
            at = canvas.index(None)
            self._mass[canvas] = sum(self.mass(put(canvas, at, token)) for token in range(VOCAB))
        return self._mass[canvas]

    def probs(self, canvas: Canvas, at: int) -> tuple[float, ...]:
        """The distribution of an open position."""
        whole = self.mass(canvas)
        return tuple(self.mass(put(canvas, at, token)) / whole for token in range(VOCAB))

    def reread(self, canvas: Canvas, hidden: Sequence[int]) -> tuple[float, ...]:
        """Log-probabilities of the tokens with some of them hidden; those that are seen are
        certain.
        """
        seen, logs = canvas, [0.0] * LENGTH
        for at in hidden:
            seen = put(seen, at, None)
        for at in hidden:
            token = canvas[at]
            assert token is not None
            logs[at] = math.log(self.probs(seen, at)[token])
        return tuple(logs)

    def draw(
        self, canvas: Canvas, at: int, uniform: float, temperature: float
    ) -> tuple[int, float, float]:
        """A token with its log-probabilities at temperature 1 and as it was drawn."""
        key = (canvas, at, temperature)
        if key not in self._known:
            clean = self.probs(canvas, at)
            self._known[key] = (clean, tempered(clean, temperature))
        clean, drawn = self._known[key]
        token, left = 0, uniform
        while token < VOCAB - 1 and left >= drawn[token]:
            left -= drawn[token]
            token += 1
        return token, math.log(clean[token]), math.log(max(drawn[token], 1e-300))


def answers() -> list[Answer]:
    """All answers."""
    every: list[Answer] = [()]
    for _ in range(LENGTH):
        every = [(*x, token) for x in every for token in range(VOCAB)]
    return every


def put(canvas: Canvas, at: int, token: int | None) -> Canvas:
    """A canvas with one position changed."""
    return (*canvas[:at], token, *canvas[at + 1 :])


def tempered(probs: Sequence[float], temperature: float) -> tuple[float, ...]:
    """A distribution to the power `1 / temperature`; at 0 the most likely token alone."""
    if temperature == 1:
        return tuple(probs)
    if temperature == 0:
        return tuple(float(token == probs.index(max(probs))) for token in range(len(probs)))
    raised = [p ** (1 / temperature) for p in probs]
    return tuple(value / sum(raised) for value in raised)


def uniform_of(path: int, at: int, step: int) -> float:
    """A number in `[0, 1)` for one draw: the finaliser of splitmix64."""
    z = (path + at * 0x9E3779B97F4A7C15 + step * 0xD1B54A32D192ED03) & (2**64 - 1)
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return ((z ^ (z >> 31)) >> 11) / 2**53


def tilted(model: Tabular, reward: Reward, lam: float) -> dict[Answer, float]:
    """The target `p(x) exp(lam * reward(x)) / Z`."""
    weights = {x: p * math.exp(lam * reward(x)) for x, p in model.joint.items()}
    whole = sum(weights.values())
    return {x: weight / whole for x, weight in weights.items()}


def powered(model: Tabular, alpha: float) -> dict[Answer, float]:
    """The target `p(x)^alpha / Z`."""
    weights = {x: p**alpha for x, p in model.joint.items()}
    whole = sum(weights.values())
    return {x: weight / whole for x, weight in weights.items()}


def variation(samples: Iterable[Hashable], target: Mapping[Any, float]) -> float:
    """Total variation between the shares of samples and a distribution."""
    counts = Counter(samples)
    n = counts.total()
    return sum(abs(counts[x] / n - p) for x, p in target.items()) / 2


def variation_of_independent(target: Mapping[Any, float], n: int, repeats: int = 8) -> float:
    """The mean total variation of `n` independent samples of a distribution."""
    rng, keys, weights = Random(0), list(target), list(target.values())
    runs = (variation(rng.choices(keys, weights, k=n), target) for _ in range(repeats))
    return sum(runs) / repeats


def excess(samples: Sequence[Hashable], target: Mapping[Any, float]) -> float:
    """Total variation of samples, in that of as many independent ones: near 1 if all is right."""
    return variation(samples, target) / variation_of_independent(target, len(samples))


def by_level(target: Mapping[Answer, float], level: Callable[[Answer], Any]) -> dict[Any, float]:
    """The distribution of a function of the answer."""
    levels: dict[Any, float] = {}
    for x, p in target.items():
        levels[level(x)] = levels.get(level(x), 0.0) + p
    return levels
