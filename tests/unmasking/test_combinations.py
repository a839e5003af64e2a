"""What cannot go together, or means nothing, is refused before any work starts, with the reason."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from dlm import Editor, Engine, Unmasker
from dlm.config import GenerationConfig, bind
from dlm.config.aliases import resolve_aliases
from dlm.errors import InvalidRequest
from dlm.unmasking.blocks.adaptive import AdaBlock
from dlm.unmasking.blocks.fixed import Fixed
from dlm.unmasking.stop.budgets import MaxNFE
from dlm.unmasking.stop.end_ids import Eos
from dlm.unmasking.unmask.local_leap import Leap
from dlm.unmasking.unmask.threshold import Threshold
from dlm.unmasking.unmask.topk import TopK
from tests.engine.harness import info_of
from tests.helpers import random_decoder, tiny_spec

FULL = info_of(tiny_spec(), delimiters=(3,))
BLOCKS = info_of(tiny_spec(attention="block_causal", block_length=4))
ENDLESS = replace(FULL, eos_ids=())


def refused(info=FULL, /, **options: Any) -> str:
    """The reason."""
    with pytest.raises(InvalidRequest) as caught:
        bind(GenerationConfig.from_options({"max_new_tokens": 16, **options}), info)
    return str(caught.value)


def accepted(info=FULL, /, **options: Any):
    return bind(GenerationConfig.from_options({"max_new_tokens": 16, **options}), info).parts


@pytest.mark.parametrize(
    "options",
    [
        {"unmask": "topk", "steps": 8},
        {"unmask": "topk(schedule='cosine')"},
        {"unmask": "ancestral"},
        {"unmask": "dynamic(0.9, block_steps=4)"},
        {"unmask": "everything", "edit": "rcr"},
        {"unmask": "everything", "edit": "remdm"},
        {"unmask": "everything", "edit": "psi"},
        {"unmask": "everything", "edit": "p2"},
    ],
)
def test_a_schedule_counts_down_one_block_and_a_pipeline_has_several(options):
    assert "`blocks`: Pipeline denoises several blocks at once" in refused(
        blocks="pipeline(8)", **options
    )


def test_rules_without_a_clock_go_with_a_pipeline():
    for rule in ("topk", "dynamic(0.9)", "threshold", "running_mean"):
        accepted(blocks="pipeline(8)", unmask=rule)


def test_parts_that_would_share_their_memory():
    assert "Stable and Stable would share the memory 'stable_token'" in refused(
        stop=["stable(0.1)", "stable(0.2)"]
    )
    accepted(stop=["stable(0.1)", "prophet"])


@pytest.mark.parametrize(
    ("kind", "part", "message"),
    [
        ("unmask", Threshold(True), "`threshold` must be a finite number, got True"),
        (
            "unmask",
            Threshold(np.float32(0.5)),
            "`threshold` must be a finite number, got np.float32",
        ),
        ("blocks", Fixed(True), "`length` must be an integer or None, got True"),
        ("blocks", Fixed(4.0), "`length` must be an integer or None, got 4.0"),
        ("blocks", AdaBlock(length=2.5), "`length` must be an integer, got 2.5"),
        ("unmask", Leap(radius=2.5), "`radius` must be an integer, got 2.5"),
        ("unmask", TopK(demote=[1]), "got [1]"),
        ("unmask", TopK(demote=5), "got 5"),
        ("stop", Eos(ids=[3]), "got [3]"),
        ("stop", MaxNFE(2.5), "`forwards` must be an integer, got 2.5"),
    ],
)
def test_objects_are_checked_as_spec_strings_are(kind, part, message):
    found = refused(**{kind: part})
    assert found.startswith(f"`{kind}`: `")
    assert message in found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unmask": "topk(steps=9223372036854775807)"}, "an integer or None below 2**31"),
        ({"steps": 10**30}, "`steps`: must be an integer between 1 and 2147483647"),
        ({"blocks": "fixed(9223372036854775807)"}, "an integer or None below 2**31"),
        ({"blocks": "sliding(9223372036854775807)"}, "must be an integer below 2**31"),
        ({"blocks": "adaptive(threshold=-1)"}, "`threshold` must be in [0, 1], got -1"),
        (
            {"blocks": "adaptive(delimiters=(99999,))"},
            "`blocks: delimiters`: ids must be between 0 and 63",
        ),
        ({"unmask": "leap(radius=4)(0.8)"}, "must be a name or name(argument=value, ...)"),
        ({"unmask": "threshold(0.5).x(0.7)"}, "must be a name or name(argument=value, ...)"),
        ({"unmask": "threshold(threshold=0.9, threshold=0.8)"}, "an argument is given twice"),
        ({"unmask": "topk('x')"}, "`unmask`: `score` must be one of"),
        ({"unmask": "topk(schedule='x')"}, "`unmask`: `schedule` must be one of"),
        ({"unmask": "topk(conf_from='x')"}, "`conf_from` must be one of 'clean', 'tempered'"),
        ({"edit": "rcr(schedule='eps')", "unmask": "everything"}, "`edit: schedule`: must be"),
        ({"infill": {"0": 5, 0: 6}}, "an offset is given twice"),
    ],
)
def test_values_that_make_no_sense(options, message):
    assert message in refused(**options)


def test_end_ids_that_are_not_there():
    assert "`demote` 'eos' needs end ids" in refused(
        ENDLESS, unmask="topk(demote='eos')", stop="none"
    )
    assert "the model's config names none: give `ids`, or stop 'none'" in refused(ENDLESS)
    assert "`only` takes `ids` alone" in refused(stop="eos(only=True)")


def test_only_what_the_model_can_do_is_recommended():
    options = {"unmask": "everything", "edit": "rcr", "cache": "block_causal", "blocks": "fixed"}
    assert refused(BLOCKS, **options).endswith("has frozen: use cache 'none'")
    assert "'delayed' or" in refused(**{**options, "cache": "prefix"})


@dataclass(frozen=True)
class Hinted(Threshold):
    """A rule of one's own whose annotation means nothing at run time."""

    more: "int | len()" = 1


def test_annotations_that_mean_nothing_are_not_checked():
    assert accepted(unmask=Hinted(0.5)).unmask.threshold == 0.5


@dataclass(frozen=True)
class Loose:
    """A rule of one's own that inherits nothing."""

    def propose(self, view):
        raise NotImplementedError


@dataclass(frozen=True)
class Misspelt(Unmasker):
    """A rule of one's own whose method has another name."""

    def propse(self, view):
        raise NotImplementedError


@dataclass(frozen=True)
class Empty(Editor):
    """A rule of one's own that is not begun."""


def test_a_part_of_ones_own_is_told_what_it_lacks():
    """Before any work: what no part of the kind can do without is not missed at the first step."""
    assert refused(unmask=Loose()) == "`unmask`: Loose is no unmask part: inherit dlm.Unmasker"
    told = "inherit dlm.EarlyCommit or dlm.StopRule or dlm.Budget"
    assert refused(stop=Loose()) == f"`stop`: Loose is no stop part: {told}"
    assert refused(edit=Misspelt()) == "`edit`: Misspelt is no edit part: inherit dlm.Editor"
    told = "`unmask`: Misspelt lacks 'propose'; did you misspell it as 'propse'?"
    assert refused(unmask=Misspelt()) == told
    assert refused(edit=Empty()) == "`edit`: Empty lacks 'edit', 'scope'"


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"threshold": 0.9, "remasking": "low_confidence"}, "threshold(0.9)"),
        ({"factor": 2.0}, "factor(2.0, last_passes=True)"),
        ({"threshold": None, "factor": 2.0}, "factor(2.0, last_passes=True)"),
        ({"eps": 0.1}, "ancestral(eps=0.1)"),
        (
            {"alg": "confidence_threshold", "dual_cache": True},
            "threshold(0.9, conf_from='tempered', first_alone=True)",
        ),
        (
            {"alg": "confidence_threshold", "threshold": 0.5, "steps": 8},
            "threshold(0.5, conf_from='tempered', shares=8)",
        ),
        (
            {"alg": "entropy", "use_cache": True},
            "topk('entropy', 'eps', conf_from='tempered', first_alone=True)",
        ),
        ({"remasking_strategy": "low_confidence_static"}, "dynamic(1.0, None, 'tempered')"),
        ({"confidence_threshold": 0.7, "denoising_steps": 2}, "dynamic(0.7, 2, 'tempered')"),
        (
            {"remasking_strategy": "sequential", "denoising_steps": 4},
            "dynamic(1.0, 4, 'tempered', order='left')",
        ),
        (
            {"confidence_eos_eot_inf": True},
            "topk('confidence', demote='eos', renormalise=True)",
        ),
    ],
)
def test_names_of_one_reference_call(given, rule):
    assert resolve_aliases(given)["unmask"] == rule


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"threshold": 0.9, "remasking": "random"},
            "`remasking`: has no meaning beside `threshold`",
        ),
        ({"threshold": 0.9, "remasking": "x"}, "`remasking`: has no meaning beside `threshold`"),
        ({"factor": 1.0, "alg": "entropy"}, "`alg`: has no meaning beside `factor`"),
        ({"threshold": 0.9, "alg_temp": 0.3}, "`alg_temp`: has no meaning beside `threshold`"),
        ({"threshold": 0.9, "confidence_eos_eot_inf": True}, "beside `threshold`"),
        ({"alg": "entropy", "remasking": "random"}, "beside Dream's `alg`"),
        ({"alg": "entropy", "confidence_eos_eot_inf": True}, "beside Dream's `alg`"),
        ({"threshold": 0.9, "factor": 2.0}, "`factor`: takes the place of `threshold`"),
        ({"use_cache": False, "dual_cache": True}, "`dual_cache`: is a kind of `use_cache`"),
        ({"alg_temp": 0.3}, "`alg_temp`: needs an `alg` with a score"),
        ({"alg": "origin", "alg_temp": 0.3}, "`alg_temp`: needs an `alg` with a score"),
        ({"remasking": "random", "confidence_eos_eot_inf": True}, "remasking 'random' reads none"),
        ({"alg": "entropy", "threshold": 0.9}, "`alg`: has no meaning beside `threshold`"),
        ({"alg": "confidence_threshold"}, "shares the canvas out to `steps`"),
        ({"alg": "confidence_threshold", "eps": 0.1, "dual_cache": True}, "`eps`: has no meaning"),
        ({"alg": "maskgit_plus", "use_cache": True}, "takes the entropy in place of"),
        ({"eps": 0.1, "dual_cache": True}, "takes the entropy in place of 'origin'"),
        ({"threshold": 0.9, "steps": 8}, "`steps`: has no meaning beside `threshold`"),
        ({"threshold": 0.9, "denoising_steps": 8}, "beside `threshold`"),
        ({"remasking": "random", "remasking_strategy": "sequential"}, "beside LLaDA's `remasking`"),
        ({"remasking_strategy": "entropy_bounded", "eb_threshold": 0.35}, "does not run in SDAR's"),
        ({"remasking_strategy": "x"}, "`remasking_strategy`: must be one of"),
        (
            {"remasking_strategy": "sequential", "confidence_threshold": 0.9},
            "`confidence_threshold`: has no meaning beside 'sequential'",
        ),
        ({"denoising_steps": 4, "top_k": 50, "top_p": 0.9}, "`top_p`: is a share of what `top_k`"),
        ({"stopping_criteria_idx": 5}, "`stopping_criteria_idx`: must be a list of ids"),
        ({"stopping_criteria_idx": [5], "stop": "eos"}, "stands for `stop`"),
        ({"max_post_steps": 4}, "`editing_threshold`: give both"),
    ],
)
def test_names_of_different_reference_calls(given, message):
    with pytest.raises(InvalidRequest) as caught:
        resolve_aliases(given)
    assert message in str(caught.value)


def test_a_dream_call_unmasks_the_whole_canvas():
    assert resolve_aliases({"eps": 0.1})["blocks"] == "whole"
    assert resolve_aliases({"alg": "entropy"})["blocks"] == "whole"
    assert "blocks" not in resolve_aliases({"threshold": 0.9})


@pytest.mark.parametrize(
    ("given", "blocks"), [({}, "fixed(32)"), ({"block_length": None}, "whole")]
)
def test_a_cached_dream_call_has_blocks(given, blocks):
    call = {"alg": "entropy", "dual_cache": True, **given}
    assert resolve_aliases(call)["blocks"] == blocks


def test_none_is_off_where_the_references_say_so():
    assert resolve_aliases({"top_k": None, "top_p": None, "threshold": None}) == {}
    config = GenerationConfig.from_options({"top_k": None, "top_p": None})
    assert (config.top_k, config.top_p) == (0, 1.0)


@pytest.mark.parametrize("length", [2, 8, 32])
def test_the_attentions_block_is_not_changed_by_a_call(length):
    """As a part, two trained blocks at once are a rule of our own; no reference does that."""
    told = refused(BLOCKS, block_length=length)
    assert "attention, too, which has blocks of 4" in told
    assert f"overrides={{'block_length': {length}}}" in told
    assert accepted(BLOCKS, block_length=4).blocks == accepted(BLOCKS, blocks="fixed(4)").blocks
    assert accepted(FULL, block_length=length).blocks == Fixed(length).bind(FULL)


def told(**options: Any) -> str:
    engine = Engine(random_decoder(tiny_spec()), FULL)
    return str(engine.explain(max_new_tokens=32, **options))


def test_what_is_explained_is_what_will_happen():
    text = told(unmask="topk", steps=8, blocks="sliding(4)", stop=["max_nfe(9)"])
    assert "about 8 forwards, fewer where the answer ends before, 9 at the most" in text
    assert "32 forwards, fewer" in told(unmask="topk")
    assert "8 forwards, fewer" in told(unmask="topk", steps=8, blocks="fixed(8)")
    assert "32 forwards, fewer" in told(unmask="topk", steps=64, blocks="whole")
    assert "about 32 forwards" in told(unmask="ancestral", blocks="whole")
    for rule in ("remdm", "psi"):  # a full canvas may be reopened, so that more steps are taken
        assert "about 64 forwards" in told(unmask="everything", edit=f"{rule}(steps=64)")
    assert "about 32 forwards" in told(unmask="everything", edit="remdm(eta=0.0, steps=64)")
    assert "8 forwards, fewer" in told(unmask="everything", edit="p2", steps=8, blocks="whole")
    assert "4 to 32 forwards" in told(unmask="threshold", blocks="fixed(8)")
    assert "8 to 44 forwards" in told(unmask="threshold", blocks="fixed(8)", edit="rewrite(0.9, 3)")
    assert "33 to 34 forwards" in told(unmask="topk", edit="rewrite(0.9, 2)", blocks="whole")
    assert "at least 8 forwards" in told(unmask="topk", steps=8, blocks="sub_blocks(8, sub=4)")
    holes = told(unmask="topk", steps=8, infill={4: 9})
    assert "cost    8 forwards" in holes
    shown = told(unmask="topk", steps=8, blocks="whole", cache="freecache('window', window=4)")
    assert "about 8 forwards" in shown
    assert "[T1]" in told(unmask="topk").split("unmask")[1].split("\n")[0]
    assert "[T2]" in told(unmask="topk('left', 'power')").split("unmask")[1].split("\n")[0]


def test_rules_that_remember_much_say_so():
    wide = tiny_spec(vocab_size=20000)
    engine = Engine(random_decoder(wide), info_of(wide))
    assert "the rules remember 2 MiB of each answer" in str(
        engine.explain(unmask="klass", max_new_tokens=32)
    )
    assert "remember" not in told(unmask="threshold")


def test_llada2_is_surer_than_sdar():
    for family, threshold in (("sdar", 0.9), ("llada2_moe", 0.95)):
        info = replace(BLOCKS, family=family)
        assert accepted(info).unmask.threshold == threshold
        assert accepted(info, preset="fast").unmask.threshold == threshold


@pytest.mark.parametrize("cache", ["delayed(3)", "freecache('token')", "freecache('block', 4)"])
def test_a_block_that_is_held_is_computed(cache):
    engine = Engine(random_decoder(tiny_spec()), FULL)
    options = {"max_new_tokens": 8, "unmask": "everything", "stop": "none", "cache": cache}
    with pytest.raises(InvalidRequest, match=r"Rewrite looks at a filled block again"):
        engine.generate([5, 9], edit="rewrite(0.1)", **options)
    assert len(engine.generate([5, 9], edit="rewrite(0.1, 0)", **options).ids) == 8
