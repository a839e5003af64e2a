"""Whole answers beside those of public reference code, on 60 random prompts a case.

The arguments are the reference's own; what they mean here is what the migration table promises.
"""

import json

import pytest
from safetensors import safe_open

import dlm
from tests.helpers import PARITY, parity

CASES = sorted(path.stem for path in (PARITY / "differential").glob("*.safetensors"))
MASK, EOS = 500, 496


def recorded(case):
    """The header, and the rows of each tensor as lists without their padding."""
    with safe_open(PARITY / "differential" / f"{case}.safetensors", "pt") as file:
        rows = {name: file.get_tensor(name).tolist() for name in file.keys()}  # noqa: SIM118
        return file.metadata(), {
            name: [[i for i in row if i >= 0] for row in rows[name]]
            for name in ("prompts", "answers")
        } | {"nfe": rows.get("nfe")}


def load(header):
    ends = json.loads(header.get("eos_ids", f"[{EOS}]"))
    special = {"mask_id": MASK, "eos_ids": ends}
    folder = PARITY / "models" / header["model"]
    return dlm.load(folder, device="cpu", dtype="float32", overrides=special)


def answer(prompt, generation, length):
    """What stands behind the prompt, whatever ends an answer."""
    return list(generation.canvas[len(prompt) : len(prompt) + length])


@pytest.mark.parametrize("case", CASES)
def test_answers_are_the_references(case):
    header, theirs = recorded(case)
    call = json.loads(header["call"])
    stops = call.get("stopping_criteria_idx")
    ours = load(header).generate(theirs["prompts"], **({} if stops else {"stop": "none"}), **call)
    assert len(ours) == 60
    for prompt, generation, wanted in zip(theirs["prompts"], ours, theirs["answers"], strict=True):
        if stops:
            end = next((n for n, token in enumerate(wanted) if token in stops), len(wanted))
            assert list(generation.ids) == wanted[:end]
        else:
            assert answer(prompt, generation, len(wanted)) == wanted
    if theirs["nfe"] is not None:
        assert [o.stats.nfe for o in ours] == theirs["nfe"]


def test_every_case_has_a_rule_that_matters():
    """Without what the alias adds for the reference's sake, the answers are others.

    Ten prompts of each case are enough to see it.
    """
    plain = {
        "factor_none": {"unmask": "factor(1.0)"},
        "dream_dual_threshold": {"unmask": "threshold(0.6)"},
        "dream_threshold": {"unmask": "threshold(0.4)", "blocks": "whole"},
        "llada_logits_eos_inf": {"guide": "forbid('eos')"},
        "llada_confidence_eos_eot_inf": {"unmask": "topk(demote='eos')"},
        "sdar_sequential": {"unmask": "topk('left')"},
    }
    for case, other in plain.items():
        header, theirs = recorded(case)
        call = json.loads(header["call"])
        names = dlm.config.aliases.ALIASES
        kept = {n: v for n, v in call.items() if names.get(n) not in other}
        if "unmask" in other and not other["unmask"].startswith("topk"):
            kept.pop("steps", None)
        prompts, answers = theirs["prompts"][:10], theirs["answers"][:10]
        ours = load(header).generate(prompts, **kept, **other, stop="none")
        rows = zip(prompts, ours, answers, strict=True)
        assert any(answer(p, o, len(wanted)) != wanted for p, o, wanted in rows), case


@pytest.mark.parametrize("case", ["llada2/v20_b8_s8_t0.6", "llada2/v21_b8_t0.6_e0.8"])
def test_llada2s_arguments_by_sdars_names(case):
    manifest, tensors = parity(case)
    args, (prompt,) = manifest["args"], tensors["prompt"].tolist()
    same = ("gen_length", "block_length", "editing_threshold", "max_post_steps", "temperature")
    call = {name: args[name] for name in same if name in args}
    call |= {"denoising_steps": args.get("steps"), "confidence_threshold": args["threshold"]}
    special = {"mask_id": MASK, "eos_ids": (EOS,), "block_length": args["block_length"]}
    engine = dlm.load(
        PARITY / "models" / "llada2", device="cpu", dtype="float32", overrides=special
    )
    wanted = tensors["final"][0].tolist()
    assert answer(prompt, engine.generate(prompt, **call, stop="none"), len(wanted)) == wanted
