"""Protocols: how a named evaluation asks, decodes, finds the answer and judges it.

A protocol is a frozen record that goes into every run's header; a run that departs from one in
anything is called custom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from dlm.errors import InvalidRequest, unknown_name
from dlm.evals.benchmarks import prompts
from dlm.evals.benchmarks.files import locate
from dlm.evals.benchmarks.problems import LOADERS
from dlm.evals.graders.code import STOPS
from dlm.evals.items import Item

MBPP_TEST: Final = range(11, 511)
MBPP_SHOTS: Final = (2, 3, 4)
D1_PUZZLES: Final = 256
D1_SEED: Final = 42


@dataclass(frozen=True, slots=True)
class Protocol:
    """One evaluation on one benchmark.

    `data`: the file of its problems · `ask`: problem and solved examples -> what the model is given
    · `choose`: all problems of the file -> (solved examples, those that are asked) · `solved`:
    another file, whose first so many problems are the examples · `options` of the decoding ·
    `grader`: a rule with a version · `source`: where all this stands · `note`: in what it still
    differs.
    """

    name: str
    benchmark: str
    data: str
    ask: Callable[[Item, Sequence[Item]], prompts.Asked]
    grader: str
    options: Mapping[str, Any]
    source: str
    choose: Callable[[Sequence[Item]], tuple[Sequence[Item], Sequence[Item]]] = lambda items: (
        (),
        items,
    )
    solved: tuple[str, int] | None = None
    note: str = ""

    def as_data(self) -> dict[str, Any]:
        """Plain data for a run's header."""
        return {
            "name": self.name,
            "benchmark": self.benchmark,
            "data": self.data,
            "prompt": self.ask.__name__,
            "grader": self.grader,
            "options": dict(self.options),
            "source": self.source,
            "note": self.note,
        }


def benchmark_items(
    protocol: Protocol, *, limit: int | None = None, file: Path | None = None
) -> list[Item]:
    """The problems of a protocol as it asks them, the first `limit`.

    Raises `InvalidRequest` where the file of problems is missing or another one.
    """
    problems = list(LOADERS[protocol.data](locate(protocol.data, file)))
    shots, chosen = protocol.choose(problems)
    if protocol.solved is not None:
        name, count = protocol.solved
        shots = list(LOADERS[name](locate(name)))[:count]
    return [_asked(protocol, item, shots) for item in chosen[:limit]]


def _asked(protocol: Protocol, item: Item, shots: Sequence[Item]) -> Item:
    asked = protocol.ask(item, shots)
    meta = {**item.meta, "grader": protocol.grader}
    return replace(item, prompt=asked.prompt, raw=asked.raw, meta=meta)


def first(count: int) -> Callable[[Sequence[Item]], tuple[Sequence[Item], Sequence[Item]]]:
    """The first problems are solved examples, the rest is asked."""
    return lambda items: (items[:count], items[count:])


def mbpp_test(items: Sequence[Item]) -> tuple[Sequence[Item], Sequence[Item]]:
    """Tasks 2, 3 and 4 are solved examples, the test split is asked."""
    shots = [item for item in items if item.meta["number"] in MBPP_SHOTS]
    return shots, [item for item in items if item.meta["number"] in MBPP_TEST]


def d1_sample(items: Sequence[Item]) -> tuple[Sequence[Item], Sequence[Item]]:
    """The 256 puzzles that d1 drew, in its order."""
    picked = np.random.RandomState(D1_SEED).choice(len(items), D1_PUZZLES, replace=False)
    return (), [items[int(index)] for index in picked]


def _whole(length: int, **more: Any) -> dict[str, Any]:
    """LLaDA: one token a step over the whole canvas."""
    return {"max_new_tokens": length, "steps": length, "blocks": "whole"} | more


def _fixed(length: int, block: int, **more: Any) -> dict[str, Any]:
    return {"max_new_tokens": length, "blocks": f"fixed({block})"} | more


LAST: Final[Mapping[str, Any]] = MappingProxyType({"unmask": "topk(demote='eos')"})
"""LLaDA's `confidence_eos_eot_inf`: ends are committed last."""
NEVER: Final[Mapping[str, Any]] = MappingProxyType({"unmask": "topk", "guide": "forbid('eos')"})
"""LLaDA's `logits_eos_inf`: ends are never predicted."""
SURE: Final[Mapping[str, Any]] = MappingProxyType({"unmask": "threshold(0.9)", "cache": "dual"})
"""Fast-dLLM's parallel decoding with its dual cache."""
DREAM: Final[Mapping[str, Any]] = MappingProxyType(
    {"temperature": 0.1, "top_p": 0.9, "unmask": "topk('entropy', 'eps')"}
)
SDAR: Final[Mapping[str, Any]] = MappingProxyType(
    {"max_new_tokens": 4096, "unmask": "dynamic(0.95)"}
)
OPENCOMPASS: Final = "LLaDA, opencompass/examples (ML-GSAI/LLaDA)"
FAST: Final = "Fast-dLLM, llada/eval_*.sh (arXiv 2505.22618)"
ADA: Final = "AdaBlock-dLLM, llada/eval_*.sh (arXiv 2509.26432)"
CHAT: Final = "SDAR, evaluation/opencompass/configs (JetAstra/SDAR)"
D1: Final = "d1, eval (arXiv 2504.12216)"
PLANNING: Final = "Dream, eval/eval_planning.py (DreamLM/Dream)"
INSTRUCT: Final = "Dream, eval_instruct/eval.sh (DreamLM/Dream)"
DINFER: Final = "dInfer, evaluations/tasks (inclusionAI/dInfer)"
ADAPTIVE: Final = "adaptive(32, threshold=0.3)"
SHOTS_NOTE: Final = "the five examples are the first of the train split, the papers' are drawn"
BASE_NOTE: Final = "lm-evaluation-harness' prompt and stops, for models that are no chat models"


def _protocols() -> Iterable[Protocol]:
    """All of them, benchmark by benchmark; the first of each is what is taken by default."""
    code = {"stop": list(STOPS)}
    yield Protocol(
        *("llada", "humaneval", "humaneval", prompts.complete_code, "humaneval-code-v1"),
        *(_whole(512, **NEVER), OPENCOMPASS),
    )
    yield Protocol(
        *("base", "humaneval", "humaneval", prompts.bare_code, "humaneval-code-v1"),
        *(_whole(512, unmask="topk", **code), "lm-evaluation-harness, humaneval v1"),
        note=BASE_NOTE,
    )
    yield Protocol(
        *("fastdllm", "humaneval", "humaneval", prompts.code_as_turn, "humaneval-code-v1"),
        *(_fixed(256, 32, **SURE), FAST),
    )
    yield Protocol(
        *("adablock", "humaneval", "humaneval", prompts.code_as_turn, "humaneval-code-v1"),
        *({"max_new_tokens": 512, "blocks": ADAPTIVE, "unmask": "threshold(0.9)"}, ADA),
    )
    yield Protocol(
        *("dream", "humaneval", "humaneval", prompts.solve_code, "humaneval-prefilled-v1"),
        *(_whole(768, **DREAM), INSTRUCT),
    )
    yield Protocol(
        *("sdar", "humaneval", "humaneval", prompts.complete_code, "humaneval-code-v1"),
        *(SDAR, CHAT),
    )
    yield Protocol(
        *("dinfer", "mbpp", "mbpp-sanitized", prompts.enclosed_code, "mbpp-code-v1"),
        *(_fixed(1024, 64, unmask="hierarchical(0.92, 0.62)", cache="dual"), DINFER),
        note="all 427 tasks; its cache also warms up and looks around, `vicinity` here",
    )
    yield Protocol(
        *("fastdllm", "mbpp", "mbpp", prompts.expert_as_turn, "mbpp-code-v1"),
        *(_fixed(256, 32, **SURE, stop=["[DONE]"]), FAST, mbpp_test),
    )
    yield Protocol(
        *("adablock", "mbpp", "mbpp", prompts.expert_as_turn, "mbpp-code-v1"),
        {"max_new_tokens": 512, "blocks": ADAPTIVE, "unmask": "threshold(0.9)", "stop": ["[DONE]"]},
        *(ADA, mbpp_test),
    )
    yield Protocol(
        *("base", "mbpp", "mbpp", prompts.bare_expert, "mbpp-code-v1"),
        *(_whole(512, unmask="topk", stop=["[DONE]"]), "lm-evaluation-harness, mbpp v1", mbpp_test),
        note=BASE_NOTE,
    )
    for name, source, math, gsm in (
        ("llada", OPENCOMPASS, _whole(512, **LAST), _whole(512, **LAST)),
        ("sdar", CHAT, SDAR, SDAR),
    ):
        yield Protocol(
            *(name, "math500", "math500", prompts.step_by_step, "maths-boxed-v1"), *(math, source)
        )
        yield Protocol(
            *(name, "gsm8k", "gsm8k", prompts.step_by_step, "gsm8k-boxed-v1"), *(gsm, source)
        )
    d1 = _fixed(256, 32, unmask="topk", steps=128)
    yield Protocol(*("d1", "math500", "math500", prompts.d1_math500, "maths-d1-v1"), *(d1, D1))
    yield Protocol(*("d1", "gsm8k", "gsm8k", prompts.d1_math, "gsm8k-d1-v1"), *(d1, D1))
    fewshot = {"stop": ["Question:", "</s>", "<|im_end|>"]}
    yield Protocol(
        *("fastdllm", "gsm8k", "gsm8k", prompts.questions_as_turn, "gsm8k-flexible-v1"),
        *(_fixed(256, 32, **SURE, **fewshot), FAST),
        solved=("gsm8k-train", 5),
        note=SHOTS_NOTE,
    )
    yield Protocol(
        *("d1", "countdown", "countdown", prompts.d1_countdown, "countdown-d1-v1"), *(d1, D1)
    )
    chains = {"max_new_tokens": 32, "steps": 32, "blocks": "whole", "stop": ["\n"]}
    yield Protocol(
        *("dream", "countdown", "countdown-chains", prompts.dream_countdown),
        *("countdown-chains-v1", chains | {"unmask": "topk('entropy', 'eps')"}, PLANNING, first(8)),
    )
    yield Protocol(
        *("d1", "sudoku", "sudoku", prompts.d1_sudoku, "sudoku-d1-v1"), *(d1, D1, d1_sample)
    )
    grids = {"max_new_tokens": 24, "steps": 24, "blocks": "whole", "stop": ["\n\n"]}
    yield Protocol(
        *("dream", "sudoku", "sudoku-grids", prompts.dream_sudoku, "sudoku-grid-v1"),
        *(grids | {"unmask": "topk('entropy', 'eps')"}, PLANNING, first(8)),
    )


def _table() -> Mapping[str, Mapping[str, Protocol]]:
    found: dict[str, dict[str, Protocol]] = {}
    for protocol in _protocols():
        found.setdefault(protocol.benchmark, {})[protocol.name] = protocol
    return MappingProxyType({name: MappingProxyType(known) for name, known in found.items()})


BENCHMARKS: Final = _table()
"""Benchmark -> name of a protocol -> the protocol, the default first."""


def get_protocol(benchmark: str, name: str | None = None) -> Protocol:
    """A protocol of a benchmark, or its first. Raises `InvalidRequest` with the choices."""
    if benchmark not in BENCHMARKS:
        raise unknown_name("benchmark", benchmark, BENCHMARKS)
    known = BENCHMARKS[benchmark]
    if name is None:
        return next(iter(known.values()))
    if name not in known:
        found = unknown_name("protocol", name, known).message
        raise InvalidRequest("protocol", f"of {benchmark} {found}")
    return known[name]
