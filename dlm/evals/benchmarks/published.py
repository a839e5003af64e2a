"""The protocols that papers and their code have published, benchmark by benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from dlm.errors import InvalidRequest, unknown_name
from dlm.evals.benchmarks import prompts
from dlm.evals.benchmarks.protocols import Protocol, d1_sample, first, mbpp_test, sdar_mbpp
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
    return _whole(length, unmask="topk('entropy', 'eps', conf_from='tempered')", **more)


LAST: Final[Mapping[str, Any]] = MappingProxyType(
    {"unmask": "topk(demote='eos', renormalise=True)"}
)
"""LLaDA's `confidence_eos_eot_inf`: ends are committed last."""
NEVER: Final[Mapping[str, Any]] = MappingProxyType(
    {"unmask": "topk", "guide": "forbid('end_of_text')"}
)
"""LLaDA's `logits_eos_inf`: the end of the text is never predicted, that of the turn may be."""
WARM: Final[Mapping[str, Any]] = MappingProxyType({"temperature": 0.1, "top_p": 0.9})
"""Dream-Instruct."""
BASE: Final[Mapping[str, Any]] = MappingProxyType({"temperature": 0.2, "top_p": 0.95})
"""Dream-Base on code."""
SDAR: Final[Mapping[str, Any]] = MappingProxyType(
    {"max_new_tokens": 4096, "unmask": "dynamic(1.0)"}
)
"""One token a step within each trained block, as in SDAR's table."""
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
AROUND_NOTE: Final = "its cache warms up, looks around and mixes in earlier logits (0.3) besides"
HELPER_NOTE: Final = "at most 163 are right: its cleaning drops what HumanEval/50's tests call"
EOT_NOTE: Final = "all end ids are never predicted; there it is the end of text alone"
SHORT_NOTE: Final = "a program has 10 seconds and 4 GiB here; there it has 3 seconds"
SETUP_NOTE: Final = f"at most 499 of 500 are right: it leaves out what task 367 needs; {SHORT_NOTE}"
IMPORT_NOTE: Final = "what its tests import is left out, which ten tasks need"
LONG_NOTE: Final = "a program has 10 seconds and 4 GiB here; there it has 9 seconds"
CLEAN_NOTE: Final = f"{HELPER_NOTE}; {SHORT_NOTE}"
SUBSET_NOTE: Final = "500 of the 5,000 problems that are asked there"
BESIDE_NOTE: Final = "the `math_verify` beside it is that of the version that is installed"
SYMPY_NOTE: Final = (
    "at most 472 are right: sympy reads no tuples, intervals and matrices; "
    f"{SUBSET_NOTE}; {BESIDE_NOTE}"
)
FEW_NOTE: Final = f"{SYMPY_NOTE}; two misprints in its examples are mended"
VERIFY_NOTE: Final = (
    "math-verify is the one that is installed; 0.8.0, used there, differs on twin boxes and on $ "
    "beside %"
)
POWER_NOTE: Final = "powers of more than 4,096 bits are not computed"
PYTHON_NOTE: Final = "the left sides of equations are arithmetic alone; there they are any Python"
CELLS_NOTE: Final = "right is a whole puzzle; the figure there is `cells`"


def bare_and_turn(write: prompts.Write) -> tuple[prompts.Ask, prompts.Ask]:
    """The two ways of giving one text."""
    return prompts.bare(write), prompts.as_turn(write)


def _humaneval() -> Iterable[Protocol]:
    code = ("humaneval", "humaneval")
    bare, turn = bare_and_turn(prompts.code)
    fence, clean = "humaneval-opencompass-v1", "humaneval-dream-v1"
    stops = {"stop": list(STOPS)}
    whole, warm = _whole(1024, unmask="topk", **stops), _dream(768, **WARM, **stops)
    never, free = _whole(512, **NEVER), _dream(512, **BASE)
    yield Protocol(
        *("llada", *code, prompts.complete_code, fence, never, OPENCOMPASS),
        note=f"{EOT_NOTE}; {SHORT_NOTE}",
    )
    yield Protocol(
        *("base", *code, bare, "humaneval-raw-v1", whole, f"{HARNESS} humaneval"), note=SHORT_NOTE
    )
    yield Protocol("fastdllm", *code, turn, clean, _sure(256), FAST, note=CLEAN_NOTE)
    yield Protocol("adablock", *code, turn, clean, _adaptive(512), ADA, note=CLEAN_NOTE)
    yield Protocol("dream", *code, prompts.solve_code, clean, warm, INSTRUCT, note=CLEAN_NOTE)
    yield Protocol("dream-base", *code, bare, clean, free, GENERATED, begin=True, note=CLEAN_NOTE)
    yield Protocol("sdar", *code, prompts.implement_code, fence, SDAR, CHAT, note=SHORT_NOTE)


def _mbpp() -> Iterable[Protocol]:
    full, (bare, turn) = ("mbpp", "mbpp"), bare_and_turn(prompts.expert)
    raw, whole = "mbpp-raw-v2", _whole(1024, unmask="topk", **DONE)
    warm, free = _dream(1024, **WARM, stop=["```"]), _dream(512, **BASE, **DONE)
    yield Protocol(
        *("llada", *full, prompts.expert_turns, "mbpp-opencompass-v2", _whole(256, **LAST)),
        *(OPENCOMPASS, mbpp_test),
        shown="opencompass-mbpp",
        note=f"at most 496 of 500 are right: its rule spoils other references; {LONG_NOTE}",
    )
    yield Protocol(
        *("dinfer", "mbpp", "mbpp-sanitized", prompts.enclosed_code, "mbpp-dinfer-v1"),
        *(_fixed(1024, 64, **HIERARCHICAL), DINFER),
        note=f"all 427 tasks, at most 417 are right: {IMPORT_NOTE}; {AROUND_NOTE}; {SHORT_NOTE}",
    )
    yield Protocol(
        *("fastdllm", *full, turn, raw, _sure(256, **DONE), FAST, mbpp_test), note=SETUP_NOTE
    )
    yield Protocol(
        *("adablock", *full, turn, "mbpp-dream-v2", _adaptive(512, **DONE), ADA, mbpp_test),
        note=f"at most 480 of 500 are right: its cleaning spoils other references; {SHORT_NOTE}",
    )
    yield Protocol(
        *("base", *full, bare, raw, whole, f"{HARNESS} mbpp", mbpp_test), note=SETUP_NOTE
    )
    yield Protocol(
        *("dream", *full, prompts.expert_prefilled, "mbpp-prefilled-v2", warm, INSTRUCT, mbpp_test),
        note=SETUP_NOTE,
    )
    yield Protocol(
        *("dream-base", *full, bare, raw, free, GENERATED, mbpp_test), begin=True, note=SETUP_NOTE
    )
    yield Protocol(
        *("sdar", "mbpp", "mbpp-sanitized", prompts.submitted_code, "mbpp-sdar-v1"),
        *(SDAR, CHAT, sdar_mbpp),
        note=f"at most 247 of 257 are right: {IMPORT_NOTE}; {LONG_NOTE}",
    )


def _math500() -> Iterable[Protocol]:
    task, asked = ("math500", "math500"), prompts.step_by_step
    (bare, turn), rule = bare_and_turn(prompts.minerva), "maths-minerva2-v1"
    few: dict[str, Any] = {"shown": "minerva", "note": FEW_NOTE}
    whole, free = _whole(1024, unmask="topk", **PROBLEM), _dream(512, top_p=0.95, **PROBLEM)
    yield Protocol(
        *("llada", *task, asked, "maths-opencompass-v1", _whole(512, **LAST), OPENCOMPASS),
        note=SUBSET_NOTE,
    )
    yield Protocol("sdar", *task, asked, "maths-verified-v2", SDAR, CHAT, note=VERIFY_NOTE)
    yield Protocol("d1", *task, prompts.d1_math500, "maths-d1-v2", _d1(), D1)
    yield Protocol("fastdllm", *task, turn, rule, _sure(256, **PROBLEM), FAST, **few)
    yield Protocol("adablock", *task, turn, rule, _adaptive(512, **PROBLEM), ADA, **few)
    yield Protocol(
        *("base", *task, bare, "maths-minerva3-v1", whole, f"{HARNESS} minerva_math500"),
        shown="minerva",
    )
    yield Protocol(
        *("dream", *task, turn, rule, _dream(512, **WARM, **PROBLEM), INSTRUCT),
        note=SYMPY_NOTE,
    )
    yield Protocol("dream-base", *task, bare, rule, free, GENERATED, begin=True, **few)


def _gsm8k() -> Iterable[Protocol]:
    task, chain = ("gsm8k", "gsm8k"), "gsm8k-chain-v1"
    (bare, turn), rule = bare_and_turn(prompts.questions), "gsm8k-flexible-v1"
    bare_chain, chain_turn = bare_and_turn(prompts.chain)
    shots: dict[str, Any] = {"solved": ("gsm8k-train", 5)}
    whole, free = _whole(1024, unmask="topk", **TURN), _dream(256, top_p=0.95, **CHAIN)
    yield Protocol(
        *("llada", *task, prompts.question_turns, "gsm8k-opencompass-v1", _whole(512, **LAST)),
        *(OPENCOMPASS,),
        shown="opencompass-gsm8k",
    )
    yield Protocol("sdar", *task, prompts.step_by_step, "gsm8k-boxed-v3", SDAR, CHAT)
    yield Protocol("d1", *task, prompts.d1_math, "gsm8k-d1-v1", _d1(), D1)
    yield Protocol("fastdllm", *task, turn, rule, _sure(256, **TURN), FAST, **shots)
    yield Protocol("adablock", *task, turn, rule, _adaptive(512, **TURN), ADA, **shots)
    yield Protocol("base", *task, bare, rule, whole, f"{HARNESS} gsm8k", **shots)
    yield Protocol(
        *("dream", *task, chain_turn, chain, _dream(256, **WARM, **CHAIN), INSTRUCT),
    )
    yield Protocol(
        *("dream-base", *task, bare_chain, chain, free, GENERATED),
        shown="chain-of-thought",
        begin=True,
    )
    yield Protocol(
        *("dinfer", *task, prompts.dinfer_questions, "gsm8k-dinfer-v1"),
        *(_fixed(1024, 64, **HIERARCHICAL), DINFER),
        shown="dinfer",
        note=AROUND_NOTE,
    )


def _puzzles() -> Iterable[Protocol]:
    yield Protocol(
        *("d1", "countdown", "countdown", prompts.d1_countdown, "countdown-d1-v2", _d1(), D1),
        note=POWER_NOTE,
    )
    yield Protocol(
        *("dream", "countdown", "countdown-chains", prompts.dream_countdown),
        *("countdown-chains-v2", _dream(32, stop=["\n"]), PLANNING, first(8)),
        note=f"{PYTHON_NOTE}; {POWER_NOTE}",
    )
    yield Protocol(
        *("d1", "sudoku", "sudoku", prompts.d1_sudoku, "sudoku-d1-v1", _d1(), D1, d1_sample),
        note=CELLS_NOTE,
    )
    yield Protocol(
        *("dream", "sudoku", "sudoku-grids", prompts.dream_sudoku, "sudoku-grid-v2"),
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
