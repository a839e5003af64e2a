"""`parse_verifier`: from the spec of a user to a verifier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from dlm.config.spec_strings import parse_with
from dlm.errors import InvalidRequest, shown
from dlm.search.names import VERIFIERS, called
from dlm.search.verifier import Verifier
from dlm.search.verifiers.function import UserFunction, function_at

DEEPEST: Final = 4
"""Verifiers that one may stand inside of."""


def parse_verifier(spec: Any, *, trusted: bool = True) -> Verifier | None:
    """The verifier that a spec means: one, a function of a text or the path of one
    ("package.module:function"), or a list of them for an ensemble.

    trusted: False takes registered names alone, and none that is `private`

    Raises `InvalidRequest`.
    """
    return None if spec is None else _parsed(spec, 0, trusted=trusted)


def _parsed(spec: Any, depth: int, *, trusted: bool) -> Verifier:
    """A verifier that stands inside `depth` others."""
    if depth > DEEPEST:
        raise InvalidRequest("verifier", f"must be nested at most {DEEPEST} deep")

    def parse(inner: Any) -> Verifier:
        return _parsed(inner, depth + 1, trusted=trusted)

    verifier = _unresolved(spec, trusted=trusted).resolve(parse)
    if verifier.private and not trusted:  # its parts have been asked
        rule = "reads files or runs programs of this machine: it is for trusted code alone"
        raise InvalidRequest("verifier", f"{called(verifier)} {rule}")
    return verifier


def _unresolved(spec: Any, *, trusted: bool) -> Verifier:
    if isinstance(spec, list | tuple):
        made: Callable[..., Verifier] = VERIFIERS.load("ensemble")
        return made(tuple(spec))
    given = function_at(spec) if trusted and isinstance(spec, str) else spec
    if trusted and callable(given) and not isinstance(given, Verifier | type):
        return UserFunction(given)
    verifier = parse_with(VERIFIERS, spec, trusted=trusted)
    if not isinstance(verifier, Verifier):
        rule = "is no verifier: inherit dlm.search.Verifier, or give a function"
        raise InvalidRequest("verifier", f"{called(verifier)} {rule}, got {shown(spec)}")
    return verifier
