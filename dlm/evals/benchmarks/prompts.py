"""Prompts of the protocols: from a problem, after solved ones, to the model's input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from dlm.evals.items import Item


class Asked(NamedTuple):
    """A prompt: messages of a talk, or a text that no chat template goes around (`raw`).

    A last message of the assistant is one that the answer goes on with.
    """

    prompt: str | list[dict[str, str]]
    raw: bool = False


Write = Callable[[Item, Sequence[Item]], str]
"""From a problem and solved ones to one text."""
Ask = Callable[[Item, Sequence[Item]], Asked]

D1_FORMAT: Final = """Respond in the following format:
<reasoning>
Your reasoning here
</reasoning>
<answer>
\\boxed{...}
</answer>"""
D1_MATH: Final = (
    "You are a math expert. You will be given a question to solve. Solve it step by step. "
    "Wrap the final answer in a \\boxed{}."
)
D1_COUNTDOWN: Final = (
    "Using only the provided numbers, create an arithmetic expression that evaluates to exactly "
    "the provided target number. You may use the operations +, -, *, and / as needed, but each "
    "number must be used exactly once. Think step-by-step. After reasoning, provide only your "
    "final expression inside \\boxed{} tags without including an equals sign or the target "
    "number. For example: \\boxed{a + b * c}"
)
D1_SUDOKU: Final = """
Please solve the following 4x4 Sudoku puzzle. The puzzle is provided as a 16-character string \
reading left-to-right, top-to-bottom, where '0' represents empty cells.

Rules:
- Fill empty cells with digits 1-4
- Each row must contain digits 1-4 exactly once
- Each column must contain digits 1-4 exactly once
- Each 2x2 box must contain digits 1-4 exactly once

Important: Your solution must be a COMPLETE 16-character string with only the digits 1-4, \
representing your final solved grid.

Respond in this exact format:
<reasoning>
Your step-by-step solving process
</reasoning>
<answer>
[16-character solution string with no spaces or separators]
</answer>
"""
STEP_BY_STEP: Final = "\nPlease reason step by step, and put your final answer within \\boxed{}."
EXPERT: Final = "You are an expert Python programmer, and here is your task: "


def after(shots: Sequence[Item], content: str) -> Asked:
    """A turn of the user after solved ones, each with its answer."""
    turns = []
    for shot in shots:
        turns.append({"role": "user", "content": shot.meta["question"]})
        turns.append({"role": "assistant", "content": shot.answer})
    return Asked([*turns, {"role": "user", "content": content}])


def said(content: str, prefill: str = "") -> Asked:
    """One turn of the user, and the beginning of the answer where it is given."""
    turns = [{"role": "user", "content": content}]
    return Asked([*turns, {"role": "assistant", "content": prefill}] if prefill else turns)


def bare(write: Write) -> Ask:
    """As a text to be continued, which no chat template goes around."""

    def ask(item: Item, shots: Sequence[Item]) -> Asked:
        return Asked(write(item, shots), raw=True)

    ask.__name__ = f"{write.__name__}, bare"
    return ask


def as_turn(write: Write) -> Ask:
    """As one turn of the user."""

    def ask(item: Item, shots: Sequence[Item]) -> Asked:
        return said(write(item, shots))

    ask.__name__ = f"{write.__name__}, as a turn"
    return ask


# code


def code(item: Item, shots: Sequence[Item]) -> str:
    """lm-evaluation-harness `humaneval`: the code itself."""
    return str(item.meta["code"])


def complete_code(item: Item, shots: Sequence[Item]) -> Asked:
    """OpenCompass `humaneval_gen_8e312c` (LLaDA)."""
    return said(f"Complete the following python code:\n{item.meta['code']}")


def solve_code(item: Item, shots: Sequence[Item]) -> Asked:
    """Dream's `humaneval_instruct`, whose answer begins with the function.

    The template that it was run with leaves out blanks at the end of that beginning.
    """
    task = "Write a solution to the following problem and make sure that it passes the tests:"
    code = item.meta["code"]
    return said(
        f"{task}\n```{code}", f"Here is the completed function:\n```python\n{code}".rstrip()
    )


def implement_code(item: Item, shots: Sequence[Item]) -> Asked:
    """OpenCompass `humaneval_openai_sample_evals_gen_dcae0e` (SDAR)."""
    return said(
        "Read the following function signature and docstring, and fully implement the function "
        "described. Your response should only contain the code for this function.\n"
        f"{item.meta['code']}"
    )


def expert_task(item: Item) -> str:
    """MBPP's own wording, up to the code."""
    tests = "\n".join(item.meta["asserts"][:3])
    text = item.meta["text"]
    return f"{EXPERT}{text} Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"


def expert(item: Item, shots: Sequence[Item]) -> str:
    """lm-evaluation-harness `mbpp`: solved tasks first."""
    solved = [f"{expert_task(shot)}{shot.answer}\n[DONE]" for shot in shots]
    return "\n\n".join([*solved, expert_task(item)])


def expert_prefilled(item: Item, shots: Sequence[Item]) -> Asked:
    """Dream's `mbpp_instruct`, whose answer begins with a fence."""
    task = expert_task(item).removesuffix("\n[BEGIN]\n")
    return said(task, "Here is the completed function:\n```python")


def expert_turns(item: Item, shots: Sequence[Item]) -> Asked:
    """OpenCompass `mbpp_gen_830460` (LLaDA)."""
    tests, text = "\n".join(item.meta["asserts"]), item.meta["text"]
    return after(shots, f"{EXPERT}{text} Your code should pass these tests:\n\n {tests}  \n")


def submitted_code(item: Item, shots: Sequence[Item]) -> Asked:
    """OpenCompass `sanitized_mbpp_mdblock_0shot_nocot_gen_a2e416` (SDAR)."""
    tests, text = "\n".join(item.meta["asserts"]), item.meta["text"]
    return said(
        f"{EXPERT.rstrip()}\n{text}\nYour code should pass these tests:\n\n{tests}\n You should "
        "submit your final solution in the following format: ```python\n\n```"
    )


def enclosed_code(item: Item, shots: Sequence[Item]) -> Asked:
    """dInfer `mbpp_sanitized_llada_moe`."""
    tests, text = "\n".join(item.meta["asserts"]), item.meta["text"]
    return said(
        f"{EXPERT}{text} Your code should pass these tests:\n\n{tests}\n\nPlease enclose your "
        "code within delimiters as follows:\n```python\n# YOUR CODE HERE\n```\n\n"
    )


# mathematics


def step_by_step(item: Item, shots: Sequence[Item]) -> Asked:
    """OpenCompass, zero-shot: MATH of LLaDA, GSM8K and MATH of SDAR."""
    return said(_question(item) + STEP_BY_STEP)


def question_turns(item: Item, shots: Sequence[Item]) -> Asked:
    """OpenCompass `gsm8k_gen_1d7fe4` (LLaDA)."""
    return after(shots, f"Question: {_question(item)}\nLet's think step by step\nAnswer:")


def d1_math(item: Item, shots: Sequence[Item]) -> Asked:
    """d1 (arXiv 2504.12216)."""
    return said(f"{D1_MATH} \n{D1_FORMAT}\n\n{_question(item)}", "<reasoning>")


def d1_math500(item: Item, shots: Sequence[Item]) -> Asked:
    """The same for MATH-500, whose text ends in a stray quotation mark there."""
    return said(f'{D1_MATH}\n{D1_FORMAT}" \n\n\n{_question(item)}', "<reasoning>")


def questions(item: Item, shots: Sequence[Item]) -> str:
    """lm-evaluation-harness `gsm8k`: solved questions first."""
    solved = [f"Question: {shot.meta['question']}\nAnswer: {shot.answer}" for shot in shots]
    return "\n\n".join([*solved, f"Question: {item.meta['question']}\nAnswer:"])


def minerva(item: Item, shots: Sequence[Item]) -> str:
    """lm-evaluation-harness `minerva_math`: solved problems first."""
    solved = [f"Problem:\n{s.meta['problem']}\n\nSolution: {s.answer}" for s in shots]
    return "\n\n".join([*solved, f"Problem:\n{item.meta['problem']}\n\nSolution:"])


def chain(item: Item, shots: Sequence[Item]) -> str:
    """lm-evaluation-harness `gsm8k_cot`: chains of thought first."""
    solved = [f"Q: {shot.meta['question']}\nA: {shot.answer}" for shot in shots]
    return "\n\n".join([*solved, f"Q: {item.meta['question']}\nA:"])


def dinfer_questions(item: Item, shots: Sequence[Item]) -> Asked:
    """dInfer `gsm8k_llada_moe`."""
    line = "Please reason step by step\nAnswer:"
    solved = [f"Question: {shot.meta['question']}\n{line} {shot.answer}" for shot in shots]
    return said("\n\n".join([*solved, f"Question: {item.meta['question']}\n{line}"]))


def _question(item: Item) -> str:
    found: Any = item.meta.get("question", item.meta.get("problem"))
    return str(found)


# puzzles


def d1_countdown(item: Item, shots: Sequence[Item]) -> Asked:
    """d1 (arXiv 2504.12216)."""
    numbers, target = item.meta["numbers"], item.meta["target"]
    puzzle = f"Numbers: {numbers}\nTarget: {target}"
    return said(f"{D1_COUNTDOWN}{D1_FORMAT}\n\n{puzzle}", "<reasoning>")


def d1_sudoku(item: Item, shots: Sequence[Item]) -> Asked:
    """d1 (arXiv 2504.12216)."""
    puzzle = f"Solve the following Sudoku puzzle: {item.meta['puzzle']}\n"
    return said(f"{D1_SUDOKU}\n\n{puzzle}", "<reasoning>")


def dream_countdown(item: Item, shots: Sequence[Item]) -> Asked:
    """Dream (arXiv 2508.15487), base models."""
    task = "Given 4 numbers, use +-*/ to operate over the first three numbers to achieve the last "
    solved = [f"Input: {shot.meta['input']}\nOutput: {shot.answer}" for shot in shots]
    lines = [f"{task}number.", *solved, f"Input: {item.meta['input']}\nOutput: "]
    return Asked("\n\n".join(lines), raw=True)


def dream_sudoku(item: Item, shots: Sequence[Item]) -> Asked:
    """Dream (arXiv 2508.15487), base models."""
    task = (
        "Fill the positions where the values are 0 in a 4x4 grid with digits 1-4 so that each "
        "column, each row, and each of the four 2x2 subgrids that compose the grid contains all of "
        "the digits from 1 to 4."
    )
    solved = [f"Input:\n{shot.meta['input']}\nOutput:\n{shot.answer}" for shot in shots]
    return Asked(
        "\n\n".join([task, *solved, f"Input:\n{item.meta['input']}\nOutput:\n "]), raw=True
    )
