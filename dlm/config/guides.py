"""Do guides leave something to write and a way to end, and do they read what they can?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dlm.core import Guide, ModelInfo, Parts
from dlm.errors import InvalidRequest, blaming

READ: Final = ("masked model that guides read", "causal model that reads drafts")
"""The kinds of auxiliary models."""


def check_readers(parts: Parts, info: ModelInfo) -> None:
    """Guides read masked auxiliary models, and all other parts causal ones.

    Raises `InvalidRequest`.
    """
    for kind, part in parts.with_kinds():
        other = kind != "guide"
        for name in sorted(part.needs & set(info.aux)):
            if (name in info.references) == other:
                raise InvalidRequest(
                    kind,
                    f"{type(part).__name__} needs {name!r} to be a {READ[other]}, and what was "
                    f"loaded is a {READ[not other]}",
                )


def check_allowed(
    parts: Parts, ends: frozenset[int], length: int, pinned: Sequence[int | None]
) -> None:
    """Guides that allow some ids alone must leave one at every open position of the answer, and,
    where an id of `ends` could stand but for them, one of these somewhere.

    `length`: of the answer; `pinned`: the id at each of its first positions, None where it is open.
    Raises `InvalidRequest`.
    """
    if all(type(guide).allows is Guide.allows for guide in parts.guide):
        return
    could_end = may_end = False
    for at in (at for at in range(length) if at >= len(pinned) or pinned[at] is None):
        allowed = [ids for guide in parts.guide if (ids := _allowed(guide, at)) is not None]
        forbidden = frozenset[int]().union(*(_forbidden(guide, at) for guide in parts.guide))
        here = ends - forbidden
        could_end |= bool(here)
        may_end |= bool(here.intersection(*allowed))
        if allowed and not frozenset.intersection(*allowed) - forbidden:
            names = ", ".join(type(guide).__name__ for guide in parts.guide)
            raise InvalidRequest(
                "guide", f"{names} together leave no id for position {at} of the answer"
            )
    if could_end and not may_end:
        raise InvalidRequest(
            "guide",
            f"no end id ({', '.join(map(str, sorted(ends)))}) is among the allowed ids, so that no "
            "answer could end before its canvas is full: use `ends=True`, or stop='none'",
        )


def _allowed(guide: Guide, at: int) -> frozenset[int] | None:
    with blaming("guide", guide):
        return guide.allows(at)


def _forbidden(guide: Guide, at: int) -> frozenset[int]:
    with blaming("guide", guide):
        return guide.forbids(at)
