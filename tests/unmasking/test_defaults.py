"""What a rule does without arguments is what its paper, or the code with it, recommends."""

import pytest

from dlm.config import parse_part

CASES = [
    ("Fast-dLLM, arXiv 2505.22618", "unmask", "threshold", {"threshold": 0.9}),
    (
        "Fast-dLLM, arXiv 2505.22618",  # and not what its code does besides
        "unmask",
        "factor",
        {"factor": 1.0, "last_passes": False},
    ),
    ("LLaDA2.1, arXiv 2602.08676", "edit", "rewrite", {"threshold": 0.9, "post_steps": 16}),
    (
        "LocalLeap, arXiv 2510.07081",  # one hop, a hard window, open positions as anchors
        "unmask",
        "leap",
        {
            "threshold": 0.9,
            "relaxed": 0.75,
            "radius": 4,
            "committed": False,
            "decay": False,
            "chain": False,
        },
    ),
    (
        "AdaBlock, arXiv 2509.26432",
        "blocks",
        "adaptive",
        {"length": 32, "window": 0.25, "threshold": 0.3, "delimiters": None, "min_length": 1},
    ),
    (
        "dInfer, arXiv 2510.08666",
        "unmask",
        "hierarchical",
        {"threshold": 0.92, "low": 0.62},
    ),
    (
        "KLASS, arXiv 2511.05664",  # of LLaDA on HumanEval
        "unmask",
        "klass",
        {"threshold": 0.9, "kl": 0.01, "history": 2},
    ),
    ("Saber, arXiv 2510.18165", "unmask", "running_mean", {"quota": 2}),
    (
        "Prophet, arXiv 2508.19982",
        "stop",
        "prophet",
        {"early": 7.5, "middle": 5.0, "late": 2.5},
    ),
    (
        "SlowFast, arXiv 2506.10848",
        "unmask",
        "slowfast",
        {"threshold": 0.9, "low": 0.3, "explore": 6},
    ),
    ("DiffusionGemma", "unmask", "entropy_bound", {"bound": 0.1, "order": "entropy"}),
    ("DiffusionGemma", "stop", "stable", {"entropy": 0.005, "patience": 1}),
    (
        "SDAR, arXiv 2510.06303",  # of its README
        "unmask",
        "dynamic",
        {"threshold": 0.9, "block_steps": None},
    ),
    ("Fast-dLLM v2, arXiv 2509.26328", "blocks", "sub_blocks", {"sub": 8}),
    ("D2F, arXiv 2508.09192", "blocks", "pipeline", {"add": 0.1, "full": 0.95}),
    ("d3LLM, arXiv 2601.07568", "unmask", "low_entropy", {"threshold": 0.45}),  # .4 to .5
]


@pytest.mark.parametrize(
    ("kind", "name", "numbers"),
    [case[1:] for case in CASES],
    ids=[f"{name} ({paper})" for paper, _, name, _ in CASES],
)
def test_a_rule_without_arguments_has_the_numbers_of_its_paper(kind, name, numbers):
    part = parse_part(kind, name)
    assert {field: getattr(part, field) for field in numbers} == numbers
