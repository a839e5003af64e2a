"""A second masked model reads the same canvas, and guides are told what it says."""

import json
import shutil
from dataclasses import dataclass

import pytest
import torch

import dlm
from dlm import Guide
from dlm.cli.app import run
from dlm.decode.auxiliary import Auxiliary
from dlm.decode.reference import Reference
from dlm.engine.auxiliaries import _with_mask
from dlm.engine.load import BUNDLED
from dlm.errors import InvalidRequest
from dlm.model.kv_store import KVPool
from tests.engine import guide_twins
from tests.engine.harness import CPU, Bench
from tests.engine.test_auxiliary import causal
from tests.engine.test_guides import BLOCK, NEW, PLAIN
from tests.engine.test_hard_cases import SEEDS, VOCAB, assert_same, decoder_of, prompt_of
from tests.helpers import noised, random_decoder, tiny_spec
from tests.rules.guided import Guided

OPTIONS = {**PLAIN, "unmask": "threshold(0.6)"}
CAUSAL = {"attention": "block_causal", "block_length": 5}


@dataclass(frozen=True)
class AsksTheReference(Guided):
    """Takes a masked model for a causal one."""

    needs = frozenset({"ref"})


class Counted:
    """A decoder that counts the tokens it computes and how often it is called."""

    def __init__(self, decoder):
        self.decoder, self.calls, self.tokens = decoder, 0, 0

    def hidden(self, packed, kv):
        self.calls, self.tokens = self.calls + 1, self.tokens + len(packed.ids)
        return self.decoder.hidden(packed, kv)

    def logits_of(self, hidden):
        return self.decoder.logits_of(hidden)


def second(seed, vocab=VOCAB, **changes):
    """Another model, of another size."""
    sizes = {"vocab_size": vocab, "layers": 1, "hidden_size": 16, "heads": 2, "kv_heads": 1}
    return random_decoder(tiny_spec(**sizes | changes), seed)


def reference(decoder, ids=None, name="ref", model=None):
    pool = KVPool(decoder.spec, device=CPU, dtype=torch.float32)
    model = Counted(decoder) if model is None else model
    return Reference(name, model, pool, 1024, ids, VOCAB - 1, spec=decoder.spec)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize(("weight", "plausible"), [(1.0, 0.1), (0.5, 0.0), (-0.5, 0.01)])
def test_contrast_equals_its_twin(weight, plausible, every, seed):
    decoder, other, prompt = decoder_of(seed), second(seed + 10), prompt_of(5 + seed, seed)
    ref = reference(other)
    bench = Bench(decoder, aux={"ref": ref})
    state = bench.state(prompt, **OPTIONS, guide=f"contrast({weight}, {plausible}, every={every})")
    (trace,) = bench.run(state)
    read = guide_twins.reading(other, every)
    change = guide_twins.contrasted(weight, plausible, read)
    twin = guide_twins.decoded(decoder, prompt, NEW, BLOCK, 0.6, change)
    assert_same(trace, twin)
    forwards = -(-twin.nfe.total() // every)
    assert state.ledger.nfe == twin.nfe.total()
    assert state.ledger.aux_forwards == {"ref": ref.model.calls} == {"ref": forwards}
    assert state.ledger.aux_tokens == {"ref": ref.model.tokens} == {"ref": forwards * len(twin.ids)}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (3.0, 0.5, 2.0)])
def test_an_ensemble_equals_its_twin(weights, seed):
    decoder, others = decoder_of(seed), [second(seed + 10), second(seed + 20)]
    aux = {name: reference(one, name=name) for name, one in zip("ab", others, strict=True)}
    prompt, given = prompt_of(6, seed), None if len(set(weights)) == 1 else weights
    guide = f"ensemble(('a', 'b'), {given})"
    trace = Bench(decoder, aux=aux).decode(prompt, **OPTIONS, guide=guide)
    change = guide_twins.averaged(weights, *map(guide_twins.reading, others))
    assert_same(trace, guide_twins.decoded(decoder, prompt, NEW, BLOCK, 0.6, change))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("cache", ["none", "block_causal"])
def test_a_block_causal_reference_sees_what_it_was_trained_to_see(cache, seed):
    """Both models are: exact caches and none, aligned blocks, a shifted reference."""
    decoder = decoder_of(seed, **CAUSAL)
    other = second(seed + 10, **CAUSAL, shift=seed == 1)
    prompt = prompt_of(10, seed)
    trace = Bench(decoder, aux={"ref": reference(other)}).decode(
        prompt, **OPTIONS | {"cache": cache, "blocks": "fixed(5)"}, guide="contrast(0.7, 0.05)"
    )
    change = guide_twins.contrasted(0.7, 0.05, guide_twins.reading(other, causal=5))
    twin = guide_twins.decoded(decoder, prompt, NEW, 5, 0.6, change, causal=5)
    canvases = [c for i, c in enumerate(trace.canvases) if not i or c != trace.canvases[i - 1]]
    assert canvases == twin.canvases


@pytest.mark.parametrize("seed", SEEDS)
def test_ids_are_mapped_and_those_that_it_lacks_are_never_written(seed):
    decoder, other = decoder_of(seed), second(seed + 10, vocab=VOCAB + 12)
    ids = torch.randperm(VOCAB + 12, generator=torch.Generator().manual_seed(4))[:VOCAB]
    prompt, most = prompt_of(6, 1), Bench(decoder).decode(prompt_of(6, 1), **OPTIONS)
    lost = sorted(set(most.canvases[-1][6:]) - set(prompt))[:3]
    ids[lost] = -1
    trace = Bench(decoder, aux={"ref": reference(other, ids)}).decode(
        prompt, **OPTIONS, guide="contrast(0.3, 0.01)"
    )
    read = guide_twins.reading(other, ids=ids.tolist())
    change = guide_twins.contrasted(0.3, 0.01, read)
    assert_same(trace, guide_twins.decoded(decoder, prompt, NEW, BLOCK, 0.6, change))
    assert not set(lost).intersection(trace.canvases[-1][6:])


@pytest.mark.parametrize("cache", ["none", "dual"])
def test_rows_alone_are_rows_in_company(cache):
    """Other weights and periods, late rows, rows without a guide, two inputs, a causal model."""
    decoder, other, ar = decoder_of(1), second(11), causal(3)
    settings = [
        {"guide": "contrast(1.0, every=2)"},
        {"guide": "contrast(0.2, every=3)"},
        {"guide": ["cfg(0.5)", "contrast(0.5)"]},
        {"guide": ["credit(2.0)", "ensemble(every=4)"]},
        {"guide": "contrast(0.5)", "unmask": Guided(0.2)},
        {},
    ]

    def bench():
        pool = KVPool(ar.spec, device=CPU, dtype=torch.float32)
        drafts = Auxiliary("ar", ar, pool, 1024, None, VOCAB - 1)
        return Bench(decoder, aux={"ref": reference(other), "ar": drafts})

    together = bench()
    states = [
        together.state(prompt_of(5 + 2 * n, n), **{**OPTIONS, "cache": cache, **own})
        for n, own in enumerate(settings)
    ]
    together.run(*states, after={1: 2, 3: 1, 4: 3})
    for n, (state, own) in enumerate(zip(states, settings, strict=True)):
        alone = bench()
        wanted = alone.state(prompt_of(5 + 2 * n, n), **{**OPTIONS, "cache": cache, **own})
        alone.run(wanted)
        assert state.canvas.ids == wanted.canvas.ids
        assert state.ledger.aux_forwards == wanted.ledger.aux_forwards
        assert state.ledger.aux_tokens == wanted.ledger.aux_tokens


@pytest.mark.parametrize("every", [1, 3])
def test_what_it_has_read_is_forked(every):
    decoder, other = decoder_of(2), second(12)
    warm = {**OPTIONS, "temperature": 1.0, "guide": f"contrast(1.0, every={every})"}
    bench = Bench(decoder, aux={"ref": reference(other)})
    state = bench.state(prompt_of(6, 1), **warm)
    bench.scheduler.submit(state)
    for _ in range(2):
        bench.step()
    child = bench.scheduler.fork(state, choice=1, row=1, path=1)
    same = bench.scheduler.fork(state, choice=2, row=2, path=0)
    for fork in (child, same):
        bench.traces[fork] = type(bench.traces[state])()
    while not (state.done and child.done and same.done):
        bench.step()
        bench.scheduler.check_integrity()
    solo = Bench(decoder, aux={"ref": reference(other)})
    alone = solo.state(prompt_of(6, 1), **warm)
    solo.run(alone)
    assert state.canvas.ids == same.canvas.ids == alone.canvas.ids != child.canvas.ids
    assert state.ledger.aux_forwards == alone.ledger.aux_forwards
    pools = bench.scheduler.page_manager.aux.values()
    assert all(pages.in_use == 0 for pages in (bench.pool.pages, *pools))


class Flaky(Counted):
    """Has no memory for one of its calls."""

    def __init__(self, decoder, broken):
        super().__init__(decoder)
        self.broken = broken

    def hidden(self, packed, kv):
        out = super().hidden(packed, kv)
        if self.calls == self.broken:
            raise torch.OutOfMemoryError("no room for the second model")
        return out


@pytest.mark.parametrize("broken", [1, 2])
def test_a_reading_that_fails_is_repeated_for_each_row_alone(broken):
    decoder, other = decoder_of(1), second(11)
    options = {**OPTIONS, "guide": "contrast(1.0, every=2)"}
    bench = Bench(decoder, aux={"ref": reference(other, model=Flaky(other, broken))})
    states = [bench.state(prompt_of(n, n), **options) for n in (5, 8)]
    bench.run(*states)
    for n, state in zip((5, 8), states, strict=True):
        alone = Bench(decoder, aux={"ref": reference(other)})
        wanted = alone.state(prompt_of(n, n), **options)
        alone.run(wanted)
        assert state.error is None
        assert state.canvas.ids == wanted.canvas.ids


def test_no_weight_is_no_guidance_and_the_whole_one_the_other_model():
    decoder, prompt = decoder_of(3), prompt_of(6, 1)
    plain = Bench(decoder).decode(prompt, **OPTIONS)
    guided = Bench(decoder, aux={"ref": reference(second(1))})
    assert guided.decode(prompt, **OPTIONS, guide="contrast(0.0, 0.0)").canvases == plain.canvases
    swapped = Bench(second(1), aux={"ref": reference(decoder)})
    assert (
        swapped.decode(prompt, **OPTIONS, guide="contrast(-1.0, 0.0)").canvases[-1]
        == (plain.canvases[-1])
    )


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        ("contrast(-2.0)", "`weight` must be between -1 and 10000, got -2.0"),
        ("contrast(plausible=1.0)", "`plausible` must be at least 0 and below 1, got 1.0"),
        ("contrast(every=0)", "`every` must be at least 1, got 0"),
        ("contrast(ref='')", "`ref` must name models that were loaded as `aux`"),
        ("contrast(ref='base')", "needs 'base'.*loaded: 'ref'"),
        ("ensemble(())", "`refs` must name models"),
        ("ensemble(('ref', 'ref'))", "`refs` must name models .* each once"),
        ("ensemble(weights=(1.0,))", "`weights` must hold 2 numbers above 0"),
        ("ensemble(weights=(1.0, 0.0))", "`weights` must hold 2 numbers above 0"),
        ("ensemble(every=-1)", "`every` must be at least 1"),
        (["contrast", "cfg(0.5)"], "must come first"),
    ],
)
def test_what_makes_no_sense_is_refused(guide, message):
    bench = Bench(decoder_of(0), aux={"ref": reference(second(0))})
    with pytest.raises(InvalidRequest, match=message):
        bench.state(prompt_of(5, 0), **OPTIONS, guide=guide)


def test_a_model_of_the_other_kind_is_refused():
    pool = KVPool(causal(1).spec, device=CPU, dtype=torch.float32)
    drafts = Auxiliary("ar", causal(1), pool, 1024, None, VOCAB - 1)
    bench = Bench(decoder_of(0), aux={"ref": reference(second(0)), "ar": drafts})
    with pytest.raises(InvalidRequest, match="needs 'ar' to be a masked model that guides read"):
        bench.state(prompt_of(5, 0), **OPTIONS, guide="contrast(ref='ar')")
    with pytest.raises(InvalidRequest, match="needs 'ref' to be a causal model that reads drafts"):
        bench.state(prompt_of(5, 0), **OPTIONS | {"unmask": AsksTheReference()})


# from files


@pytest.fixture(scope="module")
def noised_folder(tmp_path_factory):
    """`tiny` with noise on its weights, a tenth of their spread."""
    folder = tmp_path_factory.mktemp("noised") / "tiny"
    shutil.copytree(BUNDLED / "tiny", folder)
    return noised(folder, share=0.1, seed=3)


def test_a_loaded_reference_says_what_it_says_alone(noised_folder):
    said = []

    @dataclass(frozen=True)
    class Listens(Guide):
        needs = frozenset({"base"})

        def __call__(self, logits, frame, params):
            said.append((frame.ids.clone(), frame.window.pos, frame.references["base"]))
            return logits

    engine = dlm.load("tiny", aux={"base": noised_folder}, device="cpu")
    assert engine.info.references == ("base",)
    out = engine.generate("What is 3+4?", max_new_tokens=16, blocks="fixed(8)", guide=Listens())
    assert out.stats.aux_forwards == {"base": out.stats.nfe}
    assert out.stats.aux_tokens == {"base": out.stats.nfe * (len(out.prompt_ids) + 16)}
    ids = torch.tensor([[*out.prompt_ids, *[engine.info.mask_id] * 16]])
    own = dlm.load(noised_folder, device="cpu").logits(ids)[0].log_softmax(1)
    _, pos, logp = said[0]
    assert torch.allclose(logp, own[pos[0, : len(logp)]], atol=1e-4)
    plain = engine.generate("What is 3+4?", max_new_tokens=16, blocks="fixed(8)")
    assert out.canvas == plain.canvas
    assert plain.stats.aux_forwards == {}


def test_what_a_folder_is_decides_who_may_read_it(noised_folder):
    looked = dlm.inspect("tiny", aux={"ref": noised_folder, "ar": "tiny-ar"})
    assert looked.info.references == ("ref",)
    looked.explain(guide="contrast(1.0)", max_new_tokens=16)
    with pytest.raises(InvalidRequest, match="needs 'ar' to be a masked model"):
        looked.explain(guide="contrast(ref='ar')", max_new_tokens=16)


def test_masks_stand_for_each_other_and_ends_must_have_partners():
    ours, theirs = tiny_spec(), tiny_spec(mask_id=40)
    assert _with_mask("aux", None, ours, ours, (1,)) is None
    ids = _with_mask("aux", None, ours, theirs, (1,))
    assert ids == [*range(63), 40]
    with pytest.raises(InvalidRequest, match=r"no partner for the end ids \[1\]"):
        _with_mask("aux", [0, -1, *range(2, 64)], ours, theirs, (1,))
    with pytest.raises(InvalidRequest, match="must both have a mask token"):
        _with_mask("aux", None, ours, tiny_spec(mask_id=None), (1,))


def test_on_the_command_line(noised_folder, capsys):
    command = ["generate", "What is 3+4?", "--max-new-tokens", "16", "--guide", "contrast(0.5)"]
    assert run([*command, "--aux", f"ref={noised_folder}", "--json"]) == 0
    stats = json.loads(capsys.readouterr().out)["stats"]
    assert stats["aux_forwards"] == {"ref": stats["nfe"]}
    assert run(command) == 2
    assert "load it with aux={'ref': ...}" in capsys.readouterr().err
