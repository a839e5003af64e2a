"""The protocols that papers and their code have published, benchmark by benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from dlm.errors import InvalidRequest, unknown_name
from dlm.evals.benchmarks import prompts
from dlm.evals.benchmarks.protocols import Protocol, d1_sample, first, mbpp_test
from dlm.evals.graders.code import STOPS

Options = dict[str, Any]


def _whole(length: int, **more: Any) -> Options:
    """LLaDA: one token a step over the whole canvas."""
    return {"max_new_tokens": length, "steps": length, "blocks": "whole"} | more


def _fixed(length: int, block: int, **more: Any) -> Options:
    return {"max_new_tokens": length, "blocks": f"fixed({block})"} | more


def _sure(length: int, **more: Any) -> Options:
    """Fast-dLLM's parallel decoding with its dual cache."""
    return _fixed(length, 32, unmask="threshold(0.9)", cache="dual", **more)


def _adaptive(length: int, **more: Any) -> Options:
    """AdaBlock's schedule for LLaDA, with parallel decoding."""
    blocks = "adaptive(32, threshold=0.3)"
    return {"max_new_tokens": length, "blocks": blocks, "unmask": "threshold(0.9)"} | more


def _dream(length: int, **more: Any) -> Options:
    """Dream: its entropy rule on its schedule over the whole canvas."""
    return _whole(length, unmask="topk('entropy', 'eps')", **more)


LAST: Final[Mapping[str, Any]] = MappingProxyType({"unmask": "topk(demote='eos')"})
"""LLaDA's `confidence_eos_eot_inf`: ends are committed last."""
NEVER: Final[Mapping[str, Any]] = MappingProxyType({"unmask": "topk", "guide": "forbid('eos')"})
"""LLaDA's `logits_eos_inf`: ends are never predicted."""
WARM: Final[Mapping[str, Any]] = MappingProxyType({"temperature": 0.1, "top_p": 0.9})
"""Dream-Instruct."""
BASE: Final[Mapping[str, Any]] = MappingProxyType({"temperature": 0.2, "top_p": 0.95})
"""Dream-Base on code."""
SDAR: Final[Mapping[str, Any]] = MappingProxyType(
    {"max_new_tokens": 4096, "unmask": "dynamic(0.95)"}
)
HIERARCHICAL: Final[Mapping[str, Any]] = MappingProxyType(
    {"unmask": "hierarchical(0.92, 0.62)", "cache": "dual"}
)
TURN: Final[Mapping[str, Any]] = MappingProxyType({"stop": ["Question:", "</s>", "<|im_end|>"]})
CHAIN: Final[Mapping[str, Any]] = MappingProxyType({"stop": ["Q:", "</s>", "<|im_end|>"]})
PROBLEM: Final[Mapping[str, Any]] = MappingProxyType({"stop": ["Problem:"]})
DONE: Final[Mapping[str, Any]] = MappingProxyType({"stop": ["[DONE]"]})

OPENCOMPASS: Final = "LLaDA, opencompass/examples (ML-GSAI/LLaDA)"
HARNESS: Final = "lm-evaluation-harness 0.4.13, task"
FAST: Final = "Fast-dLLM, llada/eval_*.sh (arXiv 2505.22618)"
ADA: Final = "AdaBlock-dLLM, llada/eval_*.sh (arXiv 2509.26432)"
CHAT: Final = "SDAR, evaluation/opencompass/configs (JetAstra/SDAR)"
D1: Final = "d1, eval (arXiv 2504.12216)"
PLANNING: Final = "Dream, eval/eval_planning.py (DreamLM/Dream)"
GENERATED: Final = "Dream, eval/eval_dream_gen.sh (DreamLM/Dream)"
INSTRUCT: Final = "Dream, eval_instruct/eval.sh (DreamLM/Dream)"
DINFER: Final = "dInfer, evaluations/tasks (inclusionAI/dInfer)"
SHOTS_NOTE: Final = "the five examples are the first of the train split, the papers' are drawn"
BASE_NOTE: Final = "for models that are no chat models"
AROUND_NOTE: Final = "its cache also warms up and looks around, `vicinity` here"
HELPER_NOTE: Final = "at most 163 are right: its cleaning drops what HumanEval/50's tests call"
SYMPY_NOTE: Final = "answers are compared in Minerva's normal form and by math-verify, not by sympy"


def _humaneval() -> Iterable[Protocol]:
    code, bare = ("humaneval", "humaneval"), prompts.bare_code
    asked, turn = prompts.complete_code, prompts.code_as_turn
    rule, clean = "humaneval-code-v1", "humaneval-dream-v1"
    stops = _whole(512, unmask="topk", stop=list(STOPS))
    solve = (prompts.solve_code, "humaneval-prefilled-v1")
    yield Protocol("llada", *code, asked, rule, _whole(512, **NEVER), OPENCOMPASS)
    yield Protocol("base", *code, bare, rule, stops, f"{HARNESS} humaneval", note=BASE_NOTE)
    yield Protocol("fastdllm", *code, turn, clean, _sure(256), FAST, note=HELPER_NOTE)
    yield Protocol("adablock", *code, turn, clean, _adaptive(512), ADA, note=HELPER_NOTE)
    yield Protocol("dream", *code, *solve, _dream(768, **WARM), INSTRUCT)
    base = _dream(512, **BASE)
    yield Protocol("dream-base", *code, bare, clean, base, GENERATED, note=HELPER_NOTE)
    yield Protocol("sdar", *code, asked, rule, SDAR, CHAT)


def _mbpp() -> Iterable[Protocol]:
    full, turn, bare = ("mbpp", "mbpp"), prompts.expert_as_turn, prompts.bare_expert
    rule, prefilled = "mbpp-code-v1", (prompts.expert_prefilled, "mbpp-prefilled-v1")
    yield Protocol(
        *("dinfer", "mbpp", "mbpp-sanitized", prompts.enclosed_code, rule),
        *(_fixed(1024, 64, **HIERARCHICAL, stop=["\n```\n"]), DINFER),
        note=f"all 427 tasks; {AROUND_NOTE}",
    )
    yield Protocol("fastdllm", *full, turn, rule, _sure(256, **DONE), FAST, mbpp_test)
    yield Protocol("adablock", *full, turn, rule, _adaptive(512, **DONE), ADA, mbpp_test)
    yield Protocol(
        *("base", *full, bare, rule, _whole(512, unmask="topk", **DONE), f"{HARNESS} mbpp"),
        *(mbpp_test,),
        note=BASE_NOTE,
    )
    fenced = _dream(1024, **WARM, stop=["```"])
    yield Protocol("dream", *full, *prefilled, fenced, INSTRUCT, mbpp_test)
    yield Protocol(
        "dream-base", *full, bare, rule, _dream(512, **BASE, **DONE), GENERATED, mbpp_test
    )


def _math500() -> Iterable[Protocol]:
    task, asked = ("math500", "math500"), prompts.step_by_step
    turn, bare = prompts.minerva_as_turn, prompts.bare_minerva
    rule, boxed = "maths-minerva-v1", "maths-boxed-v1"
    shots: dict[str, Any] = {"shown": "minerva", "note": SYMPY_NOTE}
    whole = _whole(512, unmask="topk", **PROBLEM)
    yield Protocol("llada", *task, asked, boxed, _whole(512, **LAST), OPENCOMPASS)
    yield Protocol("sdar", *task, asked, boxed, SDAR, CHAT)
    yield Protocol("d1", *task, prompts.d1_math500, "maths-d1-v1", _d1(), D1)
    yield Protocol("fastdllm", *task, turn, rule, _sure(256, **PROBLEM), FAST, **shots)
    yield Protocol("adablock", *task, turn, rule, _adaptive(512, **PROBLEM), ADA, **shots)
    yield Protocol("base", *task, bare, rule, whole, f"{HARNESS} minerva_math500", **shots)
    yield Protocol(
        *("dream", *task, turn, rule, _dream(512, **WARM, **PROBLEM), INSTRUCT), note=SYMPY_NOTE
    )
    yield Protocol("dream-base", *task, bare, rule, _dream(512, **PROBLEM), GENERATED, **shots)


def _gsm8k() -> Iterable[Protocol]:
    task, asked = ("gsm8k", "gsm8k"), prompts.step_by_step
    turn, bare = prompts.questions_as_turn, prompts.bare_questions
    rule, boxed, chain = "gsm8k-flexible-v1", "gsm8k-boxed-v1", "gsm8k-chain-v1"
    shots: dict[str, Any] = {"solved": ("gsm8k-train", 5), "note": SHOTS_NOTE}
    whole = _whole(256, unmask="topk", **TURN)
    yield Protocol("llada", *task, asked, boxed, _whole(512, **LAST), OPENCOMPASS)
    yield Protocol("sdar", *task, asked, boxed, SDAR, CHAT)
    yield Protocol("d1", *task, prompts.d1_math, "gsm8k-d1-v1", _d1(), D1)
    yield Protocol("fastdllm", *task, turn, rule, _sure(256, **TURN), FAST, **shots)
    yield Protocol("adablock", *task, turn, rule, _adaptive(512, **TURN), ADA, **shots)
    yield Protocol("base", *task, bare, rule, whole, f"{HARNESS} gsm8k", **shots)
    yield Protocol(
        *("dream", *task, prompts.chain_as_turn, chain, _dream(256, **WARM, **CHAIN), INSTRUCT)
    )
    yield Protocol(
        *("dream-base", *task, prompts.bare_chain, chain, _dream(256, **CHAIN), GENERATED),
        shown="chain-of-thought",
    )
    yield Protocol(
        *("dinfer", *task, prompts.dinfer_questions, rule),
        *(_fixed(1024, 64, **HIERARCHICAL, **TURN), DINFER),
        shown="dinfer",
        note=AROUND_NOTE,
    )


def _puzzles() -> Iterable[Protocol]:
    yield Protocol(
        *("d1", "countdown", "countdown", prompts.d1_countdown, "countdown-d1-v1", _d1(), D1)
    )
    yield Protocol(
        *("dream", "countdown", "countdown-chains", prompts.dream_countdown),
        *("countdown-chains-v1", _dream(32, stop=["\n"]), PLANNING, first(8)),
    )
    yield Protocol(
        *("d1", "sudoku", "sudoku", prompts.d1_sudoku, "sudoku-d1-v1", _d1(), D1, d1_sample)
    )
    yield Protocol(
        *("dream", "sudoku", "sudoku-grids", prompts.dream_sudoku, "sudoku-grid-v1"),
        *(_dream(24, stop=["\n\n"]), PLANNING, first(8)),
    )


def _d1() -> Options:
    return _fixed(256, 32, unmask="topk", steps=128)


def _table() -> Mapping[str, Mapping[str, Protocol]]:
    found: dict[str, dict[str, Protocol]] = {}
    for protocol in (*_humaneval(), *_mbpp(), *_math500(), *_gsm8k(), *_puzzles()):
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
