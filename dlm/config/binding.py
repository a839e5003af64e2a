"""From what a user said to parts that can run: parse, bind to the model, check the combination."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from dlm.config.generation import GenerationConfig
from dlm.config.guides import check_allowed, check_readers
from dlm.config.presets import PRESETS, with_preset
from dlm.config.spec_strings import registry_of
from dlm.config.stopping import NONE, as_text
from dlm.config.taking import bound_part
from dlm.core import (
    STATISTICS,
    BlockScheduler,
    Budget,
    CacheManager,
    EarlyCommit,
    Editor,
    Guide,
    ModelInfo,
    Parts,
    StopRule,
    Unmasker,
)
from dlm.errors import InvalidRequest, blaming


@dataclass(frozen=True, slots=True)
class BoundConfig:
    """One request's config with its parts bound to a model.

    `budgets` bound the cost, `stop_strings` end the text, `end_ids` the answer. `length`: of the
    canvas after the prompt; `pinned`: the ids that are pinned there, None where it is open (empty:
    all is); `committed`: the ids that stand there from the start and may be revised, likewise.
    """

    config: GenerationConfig
    parts: Parts
    budgets: tuple[Budget, ...]
    stop_strings: tuple[str, ...]
    end_ids: frozenset[int]
    length: int
    pinned: tuple[int | None, ...] = ()
    committed: tuple[int | None, ...] = ()


def bind(
    config: GenerationConfig,
    info: ModelInfo,
    pinned: tuple[int | None, ...] = (),
    committed: tuple[int | None, ...] = (),
) -> BoundConfig:
    """Parse and bind every part of `config`.

    `pinned`: the ids that its `infill` pins after the prompt; `committed`: those that stand there
    from the start and may be revised.

    Raises `InvalidRequest` with the reason when something cannot work.
    """
    config, length = with_preset(config, info), config.max_new_tokens
    assert length is not None, "a template's length is known when parts are bound"
    edits = _listed(config, "edit")
    default = "eos('block')" if edits else "eos"
    if config.start is not None:
        default = NONE  # an end id is there from the start, and later blocks have not been read
    early, rules, budgets, strings = _stops(config, default, info)
    guides = _listed(config, "guide")
    info.check_answer_ids("logit_bias", config.logit_bias)
    if config.logit_bias:
        guides.append(registry_of("guide").load("bias")(tuple(sorted(config.logit_bias.items()))))
    awaited = frozenset(i for rule in rules for i in rule.end_ids)
    ends = awaited or frozenset(info.eos_ids)
    if ends and (before := inside_holes(pinned)):
        guides.append(registry_of("guide").load("forbid")(tuple(sorted(ends)), before=before))
    unmask = bound_part("unmask", _or(config.unmask, _default_unmask(info)), Unmasker, info)
    parts = Parts(
        guide=tuple(bound_part("guide", g, Guide, info) for g in guides),
        blocks=bound_part("blocks", _or(config.blocks, "fixed"), BlockScheduler, info),
        unmask=_with_steps(unmask, config),
        edit=tuple(_with_steps(bound_part("edit", e, Editor, info), config) for e in edits),
        early=early,
        stop=rules,
        cache=bound_part("cache", _or(config.cache, _default_cache(info)), CacheManager, info),
    )
    _check_needs(parts, info)
    _check_unmask(config, parts)
    check_readers(parts, info)
    _check_scratch(parts)
    _check_steps(config, parts, filled=bool(pinned or committed))
    _check_edits(parts, info)
    _check_arms(parts)
    _check_pipeline(parts)
    check_allowed(parts, awaited, length, pinned)
    return BoundConfig(config, parts, budgets, strings, ends, length, pinned, committed)


def inside_holes(pinned: Sequence[int | None]) -> int:
    """The number of leading positions up to the last pinned one: no answer ends there."""
    return max((at + 1 for at, token in enumerate(pinned) if token is not None), default=0)


def _or(pinned: Any, default: str) -> Any:
    return default if pinned is None else pinned


def _listed(config: GenerationConfig, kind: str) -> list[Any]:
    """The parts of a kind that takes several; `"none"` alone is none."""
    pinned = config.several(kind)
    alone = len(pinned) == 1 and isinstance(pinned[0], str) and pinned[0].strip() == NONE
    return [] if alone else list(pinned)


def _default_cache(info: ModelInfo) -> str:
    """The exact one."""
    return "block_causal" if info.attention == "block_causal" else "none"


def _default_unmask(info: ModelInfo) -> str:
    """That of the preset 'fast'."""
    options = PRESETS["fast"].options(info)
    assert options is not None
    return options["unmask"]


def _stops(
    config: GenerationConfig, default: str, info: ModelInfo
) -> tuple[tuple[EarlyCommit, ...], tuple[StopRule, ...], tuple[Budget, ...], tuple[str, ...]]:
    """Split `stop` into early commits, rules, budgets and text strings.

    A string is one of the first three when its name is registered. The `default` rule is there
    unless another one ends the row; `none` switches it off.
    """
    texts = config.stop_strings()
    rest = [i for i in config.several("stop") if not any(i is text for text in texts)]
    none = [i for i in rest if isinstance(i, str) and i.strip() == NONE]
    parts = [_stop_part(i, info) for i in rest if i not in none]
    rules = tuple(part for part in parts if isinstance(part, StopRule))
    budgets = tuple(part for part in parts if isinstance(part, Budget))
    if any(not text for text in texts):
        raise InvalidRequest("stop", "a stop string must not be empty")
    early = tuple(part for part in parts if isinstance(part, EarlyCommit))
    if not none and default != NONE:
        rules = rules or (bound_part("stop", default, StopRule, info),)
    elif none and rules:
        raise InvalidRequest(
            "stop", "'none' must stand alone or beside texts, budgets and early commits"
        )
    return early, rules, budgets, texts


def _stop_part(item: Any, info: ModelInfo) -> Any:
    """A rule or a budget; where a string is refused, it may have been meant as a text."""
    try:
        return bound_part("stop", item, EarlyCommit | StopRule | Budget, info)
    except InvalidRequest as error:
        if not isinstance(item, str):
            raise
        raise InvalidRequest(error.param, f"{error.message} {as_text(item)}") from error


def _with_steps(part: Any, config: GenerationConfig) -> Any:
    """Hand the request's `steps` to a part that has a schedule and no steps of its own."""
    if (
        config.steps is None
        or "steps" not in {f.name for f in fields(part)}
        or part.steps is not None
    ):
        return part
    with blaming("unmask", part):
        return replace(part, steps=config.steps)


def _check_steps(config: GenerationConfig, parts: Parts, *, filled: bool) -> None:
    """A schedule over fixed blocks needs whole steps for each block, as in LLaDA's generate.

    Where something is `filled` from the start, blocks start at the holes and steps are shared out
    by what is open.
    """
    steps, tokens = config.steps, config.max_new_tokens
    scheduled = (parts.unmask, *parts.edit)
    if steps is not None and all(part.steps != steps for part in scheduled):
        raise InvalidRequest(
            "steps",
            f"no part follows a schedule that could take {steps} steps: use unmask 'topk', "
            "without steps of its own",
        )
    assert tokens is not None
    with blaming("blocks", parts.blocks):
        blocks = None if filled else parts.blocks.num_blocks(tokens)
    for part in scheduled:
        if blocks is not None and part.steps is not None and part.steps % blocks:
            raise InvalidRequest(
                "steps",
                f"must be a multiple of the number of blocks, {blocks} for {tokens} new tokens, "
                f"got {part.steps}",
            )


def _check_needs(parts: Parts, info: ModelInfo) -> None:
    """A part may read the known statistics, and the auxiliary models that are there."""
    for kind, part in parts.with_kinds():
        for name in sorted(part.needs - STATISTICS - set(info.aux)):
            loaded = ", ".join(map(repr, info.aux)) or "none"
            raise InvalidRequest(
                kind,
                f"{type(part).__name__} needs {name!r}, which is no statistic "
                f"({', '.join(sorted(STATISTICS))}) and no auxiliary model (loaded: {loaded}); "
                f"load it with aux={{{name!r}: ...}}",
            )


def _check_unmask(config: GenerationConfig, parts: Parts) -> None:
    """An unmasker may not work beside every other part."""
    with blaming("unmask", parts.unmask):
        reason = parts.unmask.conflict(parts, config.temperature)
    if reason:
        raise InvalidRequest("unmask", str(reason))


def _check_scratch(parts: Parts) -> None:
    """Parts know their tensors by name: two of a name would overwrite each other's."""
    owners: dict[str, str] = {}
    for kind, part in parts.with_kinds():
        name = type(part).__name__
        for spec in part.scratch:
            if spec.name in owners:
                raise InvalidRequest(
                    kind, f"{name} and {owners[spec.name]} would share the memory {spec.name!r}"
                )
            owners[spec.name] = name


def _check_pipeline(parts: Parts) -> None:
    """Schedules count down one block; and keys that are frozen at an opening go stale when a
    pipeline's block closes without one.
    """
    timed = [part for part in (parts.unmask, *parts.edit) if part.one_block]
    if parts.blocks.multi_block and timed:
        raise InvalidRequest(
            "blocks",
            f"{type(parts.blocks).__name__} denoises several blocks at once, and "
            f"{type(timed[0]).__name__} counts down the steps of one: use a rule without `steps`, "
            "such as 'threshold', or other blocks",
        )
    frozen = parts.cache.at_opening and parts.cache.on_edit == "refuse"
    if parts.blocks.multi_block and frozen:
        raise InvalidRequest(
            "blocks",
            f"{type(parts.blocks).__name__} closes blocks without refreshing what the cache "
            f"{type(parts.cache).__name__} has frozen: use cache 'block_causal', 'none', "
            "'freecache', 'delayed', 'delayed_blocks' or 'dual(on_edit=\"requery\")'",
        )


def _check_arms(parts: Parts) -> None:
    """One guide at most may ask for more than one model input of a row."""
    armed = [type(g).__name__ for g in parts.guide if g.arms > 1]
    if len(armed) > 1:
        raise InvalidRequest(
            "guide", f"one guide at most may use several model inputs, got {', '.join(armed)}"
        )
    if armed and parts.guide[0].arms == 1:
        raise InvalidRequest(
            "guide", f"{armed[0]} combines several model inputs into one and must come first"
        )


def _check_edits(parts: Parts, info: ModelInfo) -> None:
    """Rules that reach before the block need a cache that recomputes what they change."""
    for editor in parts.edit:
        with blaming("edit", editor):
            reason = editor.refuses(parts.unmask)
        if reason:
            raise InvalidRequest("edit", str(reason))
        weighs = editor.scope == "row" or editor.clock
        if weighs and parts.eligibility_filter is not None:
            raise InvalidRequest(
                "edit",
                f"{type(editor).__name__} weighs all open positions of a block against each other, "
                f"and {type(parts.blocks).__name__} offers some of them in each step: use blocks "
                "'fixed', 'whole' or 'adaptive'",
            )
        if editor.holds and parts.cache.leaves_filled:
            raise InvalidRequest(
                "edit",
                f"{type(editor).__name__} looks at a filled block again, of which the cache "
                f"{type(parts.cache).__name__} computes nothing: use cache 'none' or 'dual'",
            )
        if editor.scope == "row" and parts.cache.on_edit == "refuse":
            name = type(parts.cache).__name__
            other = ", 'delayed' or 'dual(on_edit=\"requery\")'" if info.attention == "full" else ""
            raise InvalidRequest(
                "edit",
                f"{type(editor).__name__} may reopen tokens of earlier blocks, whose keys the "
                f"cache {name} has frozen: use cache 'none'{other}",
            )
    waits = all(rule.waits_for_clean_block for rule in parts.stop) and not parts.early
    if parts.edit and not waits:
        raise InvalidRequest(
            "stop",
            "a rule that ends a row inside a block would end it before its edits are done: "
            "use eos('block')",
        )
