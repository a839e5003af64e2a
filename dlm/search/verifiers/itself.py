"""Verifiers that ask the model that decodes: is it right, and how likely is it?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any, ClassVar, Final, Literal

from dlm.config.checks import require_integer, require_number
from dlm.engine.canvas_reader import MOST_POSITIONS, sharing_unit
from dlm.engine.decisions import Predicate, QuestionTemplate
from dlm.engine.generation import Generation
from dlm.engine.scoring.job import LEAST_SAVED
from dlm.engine.scoring.rows import ROUNDING
from dlm.errors import InvalidRequest, require_text, shown, unknown_name
from dlm.search.names import called
from dlm.search.spans import Places
from dlm.search.verifier import Question, Verdict, Verifier, each, require_words
from dlm.search.verifiers.free import mean_log

METHODS: Final = ("pseudo", "chain")
PARTS: Final = ("answer", "equations")
EQUATION: Final = re.compile(
    r"(?<![-+*/=\d])(\d{1,6}[-+*/]\d{1,6})=(\d{1,6})(?![-+*/=\d])", re.ASCII
)
MOST_EQUATIONS: Final = 8
"""Equations of an answer that are judged."""


@dataclass(frozen=True, slots=True)
class SelfVerify(Verifier):
    """`self_verify`: the probability of `Yes` that the model gives when it is asked whether an
    answer is right (self-verified feedback of Prism, arXiv 2602.01842), by `Engine.decide`.

    A forward an answer. The probability is that of the first token of `Yes` against that of `No`,
    where the paper takes the largest logits among several spellings. The model favours its own
    answers, and it must know the question: the bundled ones were trained to work an equation out
    before their verdict, so that theirs on a whole answer picks no better than chance. Of
    `equations` they are asked as they were trained: each `12+3=15` of an answer, once in a search,
    with room for its working; the score is the lowest probability, and the span its equation where
    `No` is more likely. True equations may still be the wrong ones: this helps where sums fail.

    form: the text that is judged, of `{question}` and `{answer}`
    ask: the question about it
    of: `answer`, or `equations`, of which an answer without any scores 0 and a long one is judged
        by its last ones
    """

    form: str = "{question}\nAnswer: {answer}"
    ask: str = "Is it correct?"
    of: Literal["answer", "equations"] = "answer"

    tier: ClassVar[str] = "T3"
    blocks: ClassVar[bool] = True
    by_text: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("form", "ask"):
            require_text(name, getattr(self, name))
        if "{answer}" not in self.form:
            raise InvalidRequest("form", f"must hold {{answer}}, got {shown(self.form)}")
        if self.of not in PARTS:
            raise unknown_name("of", str(self.of), PARTS)

    @property
    def highest(self) -> float:
        """Certainty."""
        return 1.0

    @property
    def cost(self) -> float:
        """One canvas; of equations the most that an answer takes."""
        return 1.0 if self.of == "answer" else float(MOST_EQUATIONS)

    def bind(self, question: Question) -> Verifier:
        """See `Verifier`."""
        require_words(self, question)
        _require_mask(self, question)
        return self

    def score(self, answers: Sequence[Generation], question: Question) -> Sequence[Verdict]:
        """See `Verifier`."""

        def judge(answer: Generation) -> Verdict:
            if self.of == "equations":
                return self._of_equations(answer, question)
            return self._asked(question, question.text or "", answer.text or "")

        return each(answers, question, judge)

    def _of_equations(self, answer: Generation, question: Question) -> Verdict:
        """The verdict on the equation that is least likely right; known ones cost nothing."""
        text = question.engine.text
        found = list(EQUATION.finditer(answer.text or ""))[-MOST_EQUATIONS:]
        if not found:
            return Verdict(0.0)

        def judge(numbers: Sequence[int]) -> list[Verdict]:
            verdicts = []
            for equation, left, value in (found[number].group(0, 1, 2) for number in numbers):
                room = len(text.encode_inside(f"{equation}\n{value}"))
                reply = f"[[mask:{room}]]={value}? {{hole}}"
                verdicts.append(self._asked(question, f"Compute {left}.", equation, reply))
            return verdicts

        equations = [one[0] for one in found]
        verdicts = question.known.find(self, equations, judge, lambda _: True)
        worst = min(range(len(found)), key=lambda number: verdicts[number].score)
        score = verdicts[worst].score
        if score >= 0.5:
            return Verdict(score)
        return Verdict(score, spans=(Places(answer, text).span(*found[worst].span()),))

    def _asked(self, question: Question, asked: str, answer: str, reply: str = "") -> Verdict:
        """The verdict on an answer to a question of its own.

        reply: the model's turn, with a hole, which the end of text follows (empty: a hole alone)
        """
        end = question.engine.info.eos_ids[:1] if reply else None
        template = QuestionTemplate(
            user="{input}\n{questions}",
            question="{instructions}",
            answer=reply or "{hole}",
            end=end,
        )
        before, _, after = self.form.partition("{answer}")
        words = [part.replace("{question}", asked) for part in (before, after)]
        source, predicate = answer.join(words), Predicate(None, self.ask)
        found = question.engine.decide(source, predicate, template=template, scoring="first")
        question.spent.add(found.costs.nfe, found.costs.nfe)
        return Verdict(found.answers[0].probability)


@dataclass(frozen=True, slots=True)
class PseudoLikelihood(Verifier):
    """`pll(rate)`: the mean pseudo-log-likelihood of the tokens of an answer and its end id, each
    beside the others (Salazar et al., arXiv 1910.14659), by `Engine.score`.

    Answers that were decoded in other orders, blocks or by other rules are judged alike: the sets
    of positions that are masked at once depend on `seed` and the length of the canvas alone, and in
    models with full attention it is the whole canvas, the end ids after the answer included, which
    is equally long for all answers. A small rate is exact and dear, as few positions are guessed at
    once.

    rate: share of the positions that are masked at a time; `ceil(1 / rate)` forwards an answer, or
        a block of it in block-causal models, where one for keys that they share may come on top
    method: `pseudo`, or `chain`: from left to right, a forward a token, whatever the rate
    seed: of the sets of positions
    most: forwards of the longest answer, of the request
    """

    rate: float = 0.25
    method: Literal["pseudo", "chain"] = "pseudo"
    seed: int = 0
    most: int = field(default=0, metadata={"bound": True})

    tier: ClassVar[str] = "T2"
    blocks: ClassVar[bool] = True
    by_text: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_number("rate", self.rate, low=0.0, high=1.0)
        if self.rate == 0:
            raise InvalidRequest("rate", f"must be more than 0, got {shown(self.rate)}")
        if self.method not in METHODS:
            raise unknown_name("method", str(self.method), METHODS)
        require_integer("seed", self.seed, 0)

    @property
    def highest(self) -> float:
        """Certainty."""
        return 0.0

    @property
    def cost(self) -> float:
        """The most canvases that an answer takes; before `bind` those of full attention."""
        known = self.most or (self._sets if self.method == "pseudo" else 1)
        return float(known)

    @property
    def _sets(self) -> int:
        return ceil(1 / self.rate - ROUNDING)

    def bind(self, question: Question) -> Verifier:
        """See `Verifier`."""
        _require_mask(self, question)
        if not question.longest:
            return self
        sets = self._sets if self.method == "pseudo" else question.longest
        return replace(self, most=most_canvases(question, sets))

    def score(self, answers: Sequence[Generation], question: Question) -> Sequence[Verdict]:
        """See `Verifier`."""
        rate = self.rate if self.method == "pseudo" else None
        scored = [rescored(answer, question, self.method) for answer in answers]
        pairs = [(question.ids, ids) for ids, count in scored if count]
        found = iter(
            question.engine.score_all(pairs, method=self.method, rate=rate, seed=self.seed)
        )
        verdicts = []
        for _, count in scored:
            one: Any = next(found) if count else None
            if one is not None:
                question.spent.add(one.nfe, one.nfe)
            verdicts.append(Verdict(mean_log(() if one is None else one.logprobs[:count])))
        return verdicts


def _require_mask(verifier: Verifier, question: Question) -> None:
    """Raise `InvalidRequest` for a model without a mask."""
    if question.engine.info.mask_id is None:
        rule = "reads masked positions, and this model has no mask"
        raise InvalidRequest("verifier", f"{called(verifier)} {rule}")


def most_canvases(question: Question, sets: int) -> int:
    """The most canvases that the log-likelihood of an answer takes, with those for shared keys.

    sets: of its positions, or of those of each block, that are masked at once
    """
    engine, start = question.engine, len(question.ids)
    size: int = engine.info.alignment
    if engine.info.attention != "block_causal":
        return min(sets, question.longest)
    unit, rows = sharing_unit(engine), Counter[int]()
    for block in range(start // size * size, start + question.longest, size):
        first = max(block, start)
        count = min(sets, block + size - first)  # the surplus of the last block may hold the end
        for read, own in ((first, 1), (first + 1, count - 1)):  # one set holds the first position
            known = max(read - int(engine.info.shift), 0)
            rows[0 if unit is None else known // unit * unit] += own
    part = max((engine.scheduler.max_token_forwards or MOST_POSITIONS) // size, 1) * size
    shared = (cut for cut, own in rows.items() if (own - 1) * cut >= LEAST_SAVED)
    return rows.total() + sum(ceil(cut / part) for cut in shared)


def rescored(answer: Generation, question: Question, method: str) -> tuple[tuple[int, ...], int]:
    """The ids that are scored after the prompt, and how many of them count: those of the answer
    and its end id.

    The rest of the canvas is given where the model has seen it so: with full attention, and as far
    as nothing is open. Read from left to right it does not matter.
    """
    info, start = question.engine.info, len(answer.prompt_ids)
    after = answer.canvas[start:]
    count = len(answer.ids)
    if after[count : count + 1] and after[count] in info.eos_ids:
        count += 1
    is_whole = method == "pseudo" and info.attention == "full" and info.mask_id not in after
    return (after if is_whole else after[:count]), count
