"""Decisions on the bundled tasks: cases with their right labels, measures on the bundled model."""

import pytest

import dlm
from dlm.evals.calibration import calibration
from dlm.evals.decision_checks import company, grids, position_bias
from dlm.evals.decisions import cases, decided, distribution, written
from dlm.evals.items import bundled_items


@pytest.fixture(scope="module")
def engine():
    return dlm.load("tiny", device="cpu")


def test_cases_know_their_right_labels(engine):
    for case, item in zip(
        cases("judge", engine, "test", 60), bundled_items("judge", "test", 60), strict=True
    ):
        assert case.right == (0 if item.answer.endswith("Yes") else 1)
        assert case.grade(item.answer)
        assert item.prompt == f"{case.source}\n{case.question.instructions}"
    for case, item in zip(
        cases("sums", engine, "test", 60), bundled_items("drill", "test", 60), strict=True
    ):
        values = case.question.choices
        assert item.answer.endswith(f"={values[case.right]}")
        assert len(set(values)) == len(values) >= 4
        assert len({len(value) for value in values}) >= 2
        assert case.grade(item.answer)
    for case, item in zip(
        cases("sudoku", engine, "test", 60), bundled_items("sudoku", "test", 60), strict=True
    ):
        hole = case.template.answer.replace("[[mask:1]]", "0").index("{hole}")
        assert item.answer[hole] == case.question.choices[case.right]
        assert item.meta["puzzle"][hole] == "0"
        assert case.grade(item.answer)


def test_a_case_of_an_unknown_task_is_refused(engine):
    with pytest.raises(dlm.InvalidRequest, match="judge, sudoku, sums"):
        cases("math", engine, "dev")


@pytest.mark.parametrize(("task", "least"), [("judge", 0.75), ("sudoku", 0.9), ("sums", 0.9)])
def test_the_bundled_model_decides_well_and_at_known_costs(engine, task, least):
    asked = cases(task, engine, "dev", 40)
    found = decided(engine, asked)
    assert calibration(found.records).accuracy >= least
    assert found.forwards == len(asked)
    single = decided(engine, asked[:5])
    assert [list(r.probabilities) for r in single.records] == [
        list(r.probabilities) for r in found.records[:5]
    ]
    assert found.nfe == len(asked) * {"judge": 3, "sudoku": 1}.get(task, found.nfe / len(asked))


def test_text_answers_are_graded_and_counted(engine):
    asked = cases("sudoku", engine, "dev", 6)
    found = written(engine, asked, preset="fast")
    again = [engine.generate(case.prompt, max_new_tokens=48, preset="fast") for case in asked]
    right = sum(case.grade(answer.text) for case, answer in zip(asked, again, strict=True))
    assert (found.n, found.accuracy) == (6, right / 6)
    assert found.nfe == sum(answer.stats.nfe for answer in again)


def test_joint_grids_take_one_forward_a_puzzle(engine):
    found = grids(engine, "dev", 4)
    assert found.nfe_joint == 4
    assert found.nfe_independent == found.cells > 20
    assert found.largest < 1e-4
    assert found.accuracy > 0.8


def test_company_changes_nothing(engine):
    asked = [dlm.Choice(str(n), f"Is it {n}?", ["yes", "no"]) for n in range(3)]
    found = company(engine, "It is.", asked)
    assert (found.questions, found.nfe) == (3, 3)
    assert found.largest < 1e-5
    assert found.positions_alone == found.positions_together


def test_position_bias_counts_places_and_changes(engine):
    asked = [c for c in cases("sums", engine, "dev", 40) if len(c.question.choices) == 5][:3]
    template = dlm.QuestionTemplate(end=engine.info.eos_ids[:1])
    found = position_bias(engine, asked, template, "Which value is right?")
    assert found.n == 3
    assert sum(found.places) == pytest.approx(1)
    assert 0 <= found.changed <= 1
    first = engine.decide(
        asked[0].source,
        dlm.Choice(None, "Which value is right?", asked[0].question.choices),
        template=template,
    ).answers[0]
    assert distribution(first)[asked[0].question.choices.index(first.choice)] == max(
        distribution(first)
    )
