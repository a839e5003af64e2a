"""An auxiliary causal model decides how many left-to-right tokens commit."""

import json
import shutil
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
import torch

import dlm
from dlm.cli.app import run
from dlm.core import Proposal
from dlm.decode.auxiliary import Auxiliary
from dlm.engine.load import BUNDLED
from dlm.errors import InvalidRequest
from dlm.model.kv_store import KVPool
from dlm.text import Text, id_map
from dlm.unmasking.unmask.guided import Guided
from tests import twins
from tests.engine.harness import CPU, Bench
from tests.engine.test_hard_cases import (
    SEEDS,
    STALE,
    VOCAB,
    assert_same,
    decoder_of,
    prompt_of,
)
from tests.helpers import random_decoder, tiny_spec
from tests.rules.guided import Dictated

OPTIONS = {"max_new_tokens": 20, "blocks": "fixed(10)", "stop": "none", "cache": "none"}


def causal(seed, vocab=VOCAB, **changes):
    sizes = {"vocab_size": vocab, "layers": 1, "hidden_size": 16, "heads": 2, "kv_heads": 1}
    return random_decoder(tiny_spec(attention="causal", **sizes | changes), seed)


class Counted:
    """A model that counts the tokens it computes and how often it is called."""

    def __init__(self, decoder):
        self.decoder, self.calls, self.tokens = decoder, 0, 0

    def __call__(self, packed, kv):
        self.calls, self.tokens = self.calls + 1, self.tokens + len(packed.ids)
        return self.decoder(packed, kv)


def auxiliary(decoder, ids=None, max_length=1024, max_bytes=None):
    pool = KVPool(decoder.spec, device=CPU, dtype=torch.float32, max_bytes=max_bytes)
    return Auxiliary("ar", Counted(decoder), pool, max_length, ids, VOCAB - 1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("share", [1.0, 0.3, 0.05])
def test_a_guided_row_equals_its_twin(seed, share):
    decoder, helper = decoder_of(seed), auxiliary(causal(seed + 10))
    prompt = prompt_of(5 + seed, seed)
    bench = Bench(decoder, aux={"ar": helper})
    state = bench.state(prompt, **OPTIONS, unmask=Guided(share))
    (trace,) = bench.run(state)
    run = twins.guided(decoder, helper.model.decoder, prompt, 20, 10, share)
    assert_same(trace, run, logits=STALE)
    assert state.ledger.nfe == run.nfe.total()
    assert state.ledger.aux_forwards == {"ar": helper.model.calls}
    assert state.ledger.aux_tokens == {"ar": helper.model.tokens}
    dense = helper.model.calls * len(run.ids)
    assert helper.model.tokens < dense / 2, "the prompt's keys are kept"


def test_more_tokens_stay_where_the_causal_model_asks_for_less():
    steps = []
    for share in (1.0, 0.3, 0.05, 0.0):
        bench = Bench(decoder_of(1), aux={"ar": auxiliary(causal(3))})
        steps.append(len(bench.decode(prompt_of(6, 1), **OPTIONS, unmask=Guided(share)).forwards))
    assert steps == sorted(steps, reverse=True)
    assert steps[0] > 10
    assert steps[-1] == 2


@pytest.mark.parametrize("seed", SEEDS)
def test_guided_rows_in_one_batch_with_others(seed):
    """Ragged rows, late ones, rows that ask no auxiliary model, two inputs of one row."""
    decoder, ar = decoder_of(seed), causal(seed)
    bench = Bench(decoder, aux={"ar": auxiliary(ar)})
    settings = [(4, 0.2), (11, 0.05), (7, 0.5)]
    states = [
        bench.state(prompt_of(length, seed + length), **OPTIONS, unmask=Guided(share))
        for length, share in settings
    ]
    plain = bench.state(prompt_of(9, 2), **OPTIONS, unmask="threshold(0.5)")
    armed = bench.state(prompt_of(8, 3), **OPTIONS, unmask=Guided(0.1), guide="cfg(0.5)")
    traces = bench.run(*states, plain, armed, after={1: 2, 2: 5})
    for (length, share), trace in zip(settings, traces, strict=False):
        run = twins.guided(decoder, ar, prompt_of(length, seed + length), 20, 10, share)
        assert_same(trace, run, logits=STALE)
    assert plain.ledger.aux_forwards == {}
    alone = Bench(decoder, aux={"ar": auxiliary(ar)})
    solo = alone.decode(prompt_of(8, 3), **OPTIONS, unmask=Guided(0.1), guide="cfg(0.5)")
    assert solo.canvases == traces[-1].canvases


def test_ids_are_mapped_one_to_one():
    """The causal model knows the same pieces under other ids, and some more."""
    decoder, ar = decoder_of(2), causal(5, vocab=VOCAB + 12)
    generator = torch.Generator().manual_seed(4)
    ids = torch.randperm(VOCAB + 12, generator=generator)[:VOCAB]
    bench = Bench(decoder, aux={"ar": auxiliary(ar, ids)})
    prompt = prompt_of(6, 2)
    trace = bench.decode(prompt, **OPTIONS, unmask=Guided(0.2))
    run = twins.guided(decoder, ar, prompt, 20, 10, 0.2, ids.tolist())
    assert_same(trace, run, logits=STALE)


@pytest.mark.parametrize("seed", SEEDS)
def test_keys_of_drafts_that_were_not_written_are_made_anew(seed):
    """Several positions a step get another id than the draft that the causal model has read."""
    decoder, ar = decoder_of(seed), causal(seed + 20, mask_id=None)
    bench = Bench(decoder, aux={"ar": auxiliary(ar)})
    prompt = prompt_of(6, seed)
    trace = bench.decode(prompt, **OPTIONS, unmask=Dictated(count=3))
    run = twins.dictated(decoder, ar, prompt, 20, 10, 3)
    assert_same(trace, run, logits=STALE)


@pytest.mark.parametrize("seed", range(8))
def test_forks_copy_what_the_causal_model_writes(seed):
    """Both children go on alone from the middle of a block, on pages of their own."""
    decoder, ar = decoder_of(seed), causal(seed)
    bench = Bench(decoder, aux={"ar": auxiliary(ar)})
    warm = OPTIONS | {"temperature": 1.0}
    state = bench.state(prompt_of(6, 1), **warm, unmask=Dictated(count=2))
    bench.scheduler.submit(state)
    for _ in range(2):
        bench.step()
    child = bench.scheduler.fork(state, choice=1, row=1, path=1)
    bench.scheduler.check_integrity()
    bench.traces[child] = type(bench.traces[state])()
    while not (state.done and child.done):
        bench.step()
        bench.scheduler.check_integrity()
    alone = Bench(decoder, aux={"ar": auxiliary(ar)})
    solo = alone.decode(prompt_of(6, 1), **warm, unmask=Dictated(count=2))
    assert state.canvas.ids == solo.canvases[-1] != child.canvas.ids
    assert all(
        pages.in_use == 0
        for pages in (bench.pool.pages, *bench.scheduler.page_manager.aux.values())
    )


def test_what_cannot_be_asked_is_refused():
    bench = Bench(decoder_of(0))
    with pytest.raises(InvalidRequest, match=r"needs 'ar'.*loaded: none"):
        bench.state(prompt_of(5, 0), **OPTIONS, unmask=Guided())
    short = Bench(decoder_of(0), aux={"ar": auxiliary(causal(0), max_length=20)})
    with pytest.raises(InvalidRequest, match="limit of auxiliary 'ar' is 20"):
        short.scheduler.check(short.state(prompt_of(5, 0), **OPTIONS, unmask=Guided()))


# from files


@pytest.fixture(scope="module")
def causal_folder(tmp_path_factory):
    """A tiny Llama checkpoint as transformers writes it, with the bundled tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUNDLED / "tiny" / name, folder)
    return folder, model


@dataclass(frozen=True)
class Listens(Guided):
    """Keeps what the causal model said of the first drafts."""

    heard: list = field(default_factory=list, compare=False, hash=False)

    def propose(self, view):
        said = view.aux["ar"]
        self.heard.append(
            (view.pos.clone(), view.token.clone(), said.draft_confidence.clone(), said)
        )
        return super().propose(view)


def test_a_loaded_helper_says_what_its_own_library_says(causal_folder):
    folder, model = causal_folder
    engine = dlm.load("tiny", aux={"ar": folder}, device="cpu")
    rule = Listens(0.1)
    out = engine.generate("What is 3+4?", max_new_tokens=16, unmask=rule, blocks="fixed(8)")
    assert out.stats.aux_forwards["ar"] == out.stats.nfe > 0
    assert out.stats.aux_tokens["ar"] > out.stats.nfe
    pos, token, draft_confidence, _ = rule.heard[0]
    start = len(out.prompt_ids)
    ids = torch.tensor([[*out.prompt_ids, *token[0, :8].tolist()]])
    with torch.no_grad():
        probs = model(ids).logits[0].softmax(-1)
    expected = [probs[start + j - 1, token[0, j]] for j in range(8)]
    assert pos[0, 0] == start
    assert torch.allclose(draft_confidence[0, :8], torch.stack(expected), rtol=1e-3, atol=1e-6)
    assert engine.kv.pages.in_use == 0
    engine.scheduler.check_integrity()


def test_a_helper_that_cannot_serve_is_refused(causal_folder, tmp_path):
    folder, _ = causal_folder
    with pytest.raises(InvalidRequest, match="needs 'ar' to be a causal model that reads drafts"):
        dlm.load("tiny", aux={"ar": "tiny"}, device="cpu").submit("Hi", unmask=Guided(0.1))
    with pytest.raises(InvalidRequest, match="no statistic, got 'entropy'"):
        dlm.load("tiny", aux={"entropy": folder}, device="cpu")
    other = shutil.copytree(folder, tmp_path / "other")
    config = json.loads((other / "tokenizer.json").read_text())
    vocabulary = config["model"]["vocab"]
    vocabulary["unheard-of"] = vocabulary.pop("▁the") if "▁the" in vocabulary else 1000
    first = next(p for p in vocabulary if p.isalpha() and len(p) == 1)
    vocabulary["another"] = vocabulary.pop(first)
    config["model"]["merges"] = []
    (other / "tokenizer.json").write_text(json.dumps(config))
    with pytest.raises(InvalidRequest, match=r"one to one; it lacks \d+ of 1024"):
        dlm.load("tiny", aux={"ar": other}, device="cpu")


def test_ids_of_equal_pieces_are_matched_whatever_their_numbers():
    ours = spelled("<pad>", "a", "b", "<end>", control={"<pad>": 0, "<end>": 3}, end="<end>")
    theirs = spelled("b", "c", "a", "</s>", control={"</s>": 3}, end="</s>")
    assert id_map("aux", ours, theirs) == [-1, 2, 0, 3]
    with pytest.raises(InvalidRequest, match="lacks 1 of 4: 'c'"):
        id_map("aux", theirs, ours)


def spelled(*pieces, control, end):
    vocabulary = SimpleNamespace(
        pieces=lambda: list(pieces),
        control=control,
        control_ids=frozenset(control.values()),
        variables={"eos_token": end},
    )
    return Text(vocabulary)


@dataclass(frozen=True)
class RightFirst(Listens):
    """Commits from the right, so that keys of what is committed see drafts that change."""

    def propose(self, view):
        super().propose(view)
        order = view.eligible.int().flip(1).cumsum(1).flip(1)
        return Proposal(view.eligible & (order <= 3))


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_said_is_of_the_canvas_as_it_stands(seed):
    """In every step, whatever was committed where: the causal model's own dense reading."""
    ar, rule = causal(seed), RightFirst()
    bench = Bench(decoder_of(seed), aux={"ar": auxiliary(ar)})
    trace = bench.decode(prompt_of(5, seed), **OPTIONS | {"max_new_tokens": 24}, unmask=rule)
    assert len(rule.heard) == len(trace.forwards) > 6
    for canvas, (pos, token, draft_confidence, said) in zip(
        trace.canvases, rule.heard, strict=False
    ):
        ids, drafted = torch.tensor(canvas), said.scored[0]
        ids[pos[0, drafted]] = token[0, drafted]
        rows = twins.dense(ar, ids.tolist(), 1)
        for p, draft, c in zip(
            pos[0, drafted].tolist(),
            token[0, drafted].tolist(),
            draft_confidence[0, drafted],
            strict=True,
        ):
            assert float(rows[p - 1].softmax(0)[draft]) == pytest.approx(float(c), abs=1e-4)


class Flaky(Counted):
    """Has no memory for one of its calls."""

    def __init__(self, decoder, broken):
        super().__init__(decoder)
        self.broken = broken

    def __call__(self, packed, kv):
        out = super().__call__(packed, kv)
        if self.calls == self.broken:
            raise torch.OutOfMemoryError("no room for the auxiliary model")
        return out


@pytest.mark.parametrize("broken", [2, 4, 5])
def test_a_reading_that_fails_is_repeated_for_each_row_alone(broken):
    """Pages that were copied for it stay the rows' own; nothing of it is remembered."""
    decoder, ar = decoder_of(1), causal(2)
    helper = auxiliary(ar)
    bench = Bench(decoder, aux={"ar": replace(helper, model=Flaky(ar, broken))})
    warm = OPTIONS | {"temperature": 1.0}
    state = bench.state(prompt_of(6, 1), **warm, unmask=Dictated(count=2))
    bench.scheduler.submit(state)
    bench.step()
    child = bench.scheduler.fork(state, choice=1, row=1, path=1)
    bench.traces[child] = type(bench.traces[state])()
    while not (state.done and child.done):
        bench.step()
        bench.scheduler.check_integrity()
    alone = Bench(decoder, aux={"ar": auxiliary(ar)})
    solo = alone.decode(prompt_of(6, 1), **warm, unmask=Dictated(count=2))
    assert state.error is child.error is None
    assert state.canvas.ids == solo.canvases[-1] != child.canvas.ids


@pytest.mark.parametrize("param", ["prompt", "infill", "canvas"])
def test_ids_that_the_causal_model_cannot_read_are_refused(param):
    ids = torch.arange(VOCAB)
    ids[7] = -1
    bench = Bench(decoder_of(0), aux={"ar": auxiliary(causal(0), ids)})
    given = [7, None, 7]
    options = {**OPTIONS, **({"infill": given} if param == "infill" else {})}
    state = bench.state([3, 7 if param == "prompt" else 4, 5], **options, unmask=Guided())
    if param == "canvas":
        state.bound = replace(state.bound, committed=tuple(given))
    with pytest.raises(InvalidRequest, match=r"'ar' has no partner for the ids \[7\]") as refused:
        bench.scheduler.check(state)
    assert refused.value.param == param


def test_on_the_command_line(causal_folder, capsys):
    folder, _ = causal_folder
    rule = ["--unmask", "guided(0.1)", "--aux", f"ar={folder}"]
    command = ["generate", "What is 3+4?", "--max-new-tokens", "16", *rule]
    assert run([*command, "--json"]) == 0
    stats = json.loads(capsys.readouterr().out)["stats"]
    assert stats["aux_forwards"] == {"ar": stats["nfe"]}
    assert run([*command, "--explain"]) == 0
    assert "Guided(share=0.1, rank=None)" in capsys.readouterr().out
    assert run(command[:-2]) == 2
    assert "load it with aux={'ar': ...}" in capsys.readouterr().err
