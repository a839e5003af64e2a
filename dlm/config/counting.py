"""The number of forwards of an answer, as far as it is known before any of them runs."""

from __future__ import annotations

from dlm.config.binding import BoundConfig
from dlm.core import ModelInfo, Scheduled
from dlm.errors import blaming


def open_positions(bound: BoundConfig) -> int:
    """The positions of the canvas that are to be filled."""
    return bound.length - sum(token is not None for token in bound.pinned)


def forwards(bound: BoundConfig, info: ModelInfo) -> str:
    """The number of forwards, in words: that of a schedule, or from one a block to one a position.

    A canvas that is rounded up to whole blocks has a few open positions more than were asked for.
    """
    parts, blocks, alignment = bound.parts, bound.parts.blocks, info.alignment
    most = open_positions(bound) + alignment - 1
    with blaming("blocks", blocks):
        count, least = blocks.num_blocks(most), blocks.least_steps(most)
    held = sum(editor.post_steps for editor in parts.edit) * (count or most)
    rule = next((part for part in (parts.unmask, *parts.edit) if part.clock), None)
    if rule is None:
        return _range(least + (count or 1) * (held > 0), most + held)
    if bound.length <= info.max_length and (known := _scheduled(bound, rule, alignment)):
        return _range(known[0] + (held > 0), known[1] + held)
    about = rule.steps or most
    if not any(editor.holds for editor in parts.edit):
        about = min(about, most)
    if held:
        return f"at least {about + 1} forwards"
    if not rule.one_block and alignment == 1 and rule.steps_for(most, most) == most:
        return f"{most} forwards"
    if blocks.restricts and least > 1:
        return f"at least {blocks.least_steps(open_positions(bound))} forwards"
    return f"about {about} forwards"


def _range(least: int, most: int) -> str:
    return f"{least} forwards" if least == most else f"{least} to {most} forwards"


def _scheduled(bound: BoundConfig, rule: Scheduled, alignment: int) -> tuple[int, int] | None:
    """The least and the most forwards that an answer takes under the schedule of `rule`, over all
    lengths of its prompt; None where they are not known beforehand.

    Trained blocks of `alignment` positions start at the canvas's beginning, so that the prompt's
    tail shares the first one, and the last one is filled up.
    """
    parts = bound.parts
    if parts.blocks.restricts or parts.blocks.multi_block or not parts.cache.shows_block:
        return None
    counts = []
    for prompt in range(alignment):
        still_open = _open(bound, prompt, alignment)
        sizes = parts.blocks.block_sizes(still_open)
        steps = [rule.steps_for(size, sum(still_open)) for size in sizes or ()]
        known = [number for number in steps if number is not None]
        if sizes is None or len(known) < len(steps):
            return None
        counts.append(sum(known))
    return min(counts), max(counts)


def _open(bound: BoundConfig, prompt: int, alignment: int) -> list[bool]:
    """The positions of a canvas that are to be filled, after a prompt of `prompt` positions more
    than whole blocks.
    """
    pinned = [token is not None for token in bound.pinned] or [False] * bound.length
    surplus = -(prompt + bound.length) % alignment
    return [False] * prompt + [not pinned for pinned in pinned] + [True] * surplus
