"""The engine against trajectories and logits recorded from public reference code."""

import functools
import itertools
import json

import pytest
import torch

from dlm.config import GenerationConfig, bind
from dlm.core import ForwardPlan, Segment, span
from dlm.decode.packing import pack
from dlm.model.decoder import Decoder
from dlm.model.kv import KVPool
from dlm.model.loading import load_model
from tests.engine.harness import CPU, Bench
from tests.helpers import DEVICES, PARITY, parity

SCORES = {"entropy": "entropy", "maskgit_plus": "confidence", "topk_margin": "margin"}


def llada_generate(args):
    guide = "forbid('end_of_text')" if args.get("logits_eos_inf") else None
    guide = f"cfg({args['cfg_scale']})" if "cfg_scale" in args else guide
    blocks = f"fixed({args['block_length']})"
    return {"steps": args["steps"], "blocks": blocks, "unmask": "topk", "guide": guide}


def fastdllm(args):
    cache = {"nocache": "none"}.get(args["cache"], args["cache"])
    out = {"blocks": f"fixed({args['block_length']})", "cache": cache}
    if "factor" in args:
        return out | {"unmask": f"factor({args['factor']}, last_passes=True)"}
    if "threshold" in args:  # then the reference ignores the steps
        return out | {"unmask": f"threshold({args['threshold']})"}
    return out | {"unmask": "topk", "steps": args["steps"]}


def adablock(args):
    cache = {"nocache": "none"}.get(args["cache"], args["cache"])
    length, threshold = args["init_block_length"], args["delimiter_threshold"]
    blocks = f"adaptive({length}, threshold={threshold}, delimiters={tuple(args['delimiter_ids'])})"
    return {"blocks": blocks, "unmask": f"threshold({args['threshold']})", "cache": cache}


def mdpo(args):
    blocks = {"blocks": f"fixed({args['block_length']})"}
    if args["rcr"]:
        return blocks | {"unmask": "everything", "edit": f"rcr({args['steps']})"}
    return blocks | {"unmask": f"topk(schedule={args['mode']!r})", "steps": args["steps"]}


def dream(args):
    numbers = f"eps={args['eps']}, conf_from='tempered'"
    unmask = f"topk({SCORES[args['alg']]!r}, 'eps', {numbers})"
    return {"blocks": "whole", "unmask": unmask, "steps": args["steps"]}


def sdar(args):
    threshold = args.get("confidence_threshold", 1.0)  # the static rule has none
    out = {"unmask": f"dynamic({threshold}, {args['denoising_steps']})"}
    return out | ({"stop": f"eos('block', ({args['stop']},), True)"} if "stop" in args else {})


def llada2(args):
    out = {"unmask": f"dynamic({args['threshold']}, {args.get('steps')})"}
    if "editing_threshold" not in args:
        return out | {"stop": "eos('block')"}
    return out | {"edit": f"rewrite({args['editing_threshold']}, {args['max_post_steps']})"}


TRANSLATIONS = {
    f.__name__: f for f in (llada_generate, fastdllm, adablock, mdpo, dream, sdar, llada2)
}
RECORDED = json.loads((PARITY / "manifest.json").read_text())
SPECIAL = {"mask_id": RECORDED["mask"], "eos_ids": (RECORDED["eos"],)}
CASES = [case for case in RECORDED["cases"] if case.partition("/")[0] in TRANSLATIONS]


@functools.cache
def model(name: str, block_length: int | None, device: str = "cpu") -> Decoder:
    block = {"block_length": block_length} if name == "llada2" else {}
    folder = PARITY / "models" / name
    return load_model(folder, device=device, dtype="float32", overrides=SPECIAL | block)


def distinct(canvases):
    """Consecutive equal canvases, as before a forward that only stores keys, count once."""
    return [canvas for canvas, _ in itertools.groupby(canvases)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES)
def test_trajectory(case, device):
    manifest, recorded = parity(case)
    args = manifest["args"]
    family = case.partition("/")[0]
    options = {"stop": "none"} | TRANSLATIONS[family](args)
    options["max_new_tokens"] = args.get("gen_length") or args["max_new_tokens"]
    bench = Bench(model(manifest["model"], args.get("block_length"), device))
    (prompt,) = recorded["prompt"].tolist()
    state = bench.state(prompt, **options)
    (trace,) = bench.run(state)

    theirs = recorded["states"][:, 0].tolist()
    width = len(theirs[0])
    ours = [c[:width] + [RECORDED["mask"]] * (width - len(c)) for c in trace.canvases]
    if family == "llada2":  # its last state is before the last forward; the answer ends at EOS
        (answer,) = recorded["final"].tolist()
        final, ours = ours[-1], ours[:-1]
        assert final[len(prompt) : len(prompt) + len(answer)] == answer
    else:
        assert ours[-1] == recorded["final"][0].tolist()
    assert distinct(ours) == distinct(theirs)

    fused = sum(bool(stores) for *_, stores in manifest["calls"])
    assert state.ledger.nfe == len(trace.forwards) == manifest["nfe"] - fused


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith(("sdar", "llada2"))])
def test_final_keys_equal_computing_everything(case):
    """Block by block the same canvases, though `none` computes all positions in each step."""
    manifest, recorded = parity(case)
    args = manifest["args"]
    options = {"stop": "none"} | TRANSLATIONS[case.partition("/")[0]](args)
    options["max_new_tokens"] = args.get("gen_length") or args["max_new_tokens"]
    traces, states = [], []
    for cache in ("block_causal", "none"):
        bench = Bench(model(manifest["model"], args.get("block_length")))
        state = bench.state(recorded["prompt"][0].tolist(), **options, cache=cache)
        traces += bench.run(state)
        states.append(state)
    assert traces[0].canvases == traces[1].canvases
    for ours, everything in zip(*(trace.forwards for trace in traces), strict=True):
        assert ours.logits.keys() == everything.logits.keys()
        for position, logits in ours.logits.items():
            assert close(logits, everything.logits[position])
    costs = [state.ledger.token_forwards for state in states]
    assert costs[0] < costs[1]
    assert all(state.ledger.staleness == 0 for state in states)


def close(ours, theirs):
    ours = ours.cpu()
    spread = float(theirs.max() - theirs.min())
    return float((ours - theirs).abs().max()) <= max(1e-4, 1e-5 * spread)


def forward(decoder, pool, pages, ids, segment):
    """One segment of one row, packed and run."""
    plan = ForwardPlan((segment,), ("step",), torch.tensor([[pages]]), ids.shape[1])
    device = decoder.embedding.weight.device
    packed = pack([plan], pool, shift=decoder.spec.shift, device=device)
    with torch.inference_mode():
        return decoder(packed.read([ids.to(device)]), pool)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["llada", "sdar"])
def test_cached_windows(name, device):
    """A sequence of windows; the keys of all other positions are as old as their last window."""
    manifest, recorded = parity(f"cache/{name}")
    decoder = model(name, None, device)
    pool = KVPool(decoder.spec, device=torch.device(device), dtype=torch.float32)
    pages = pool.reserve(pool.pages_for(manifest["args"]["total"]))
    ids = torch.zeros(1, manifest["args"]["total"], dtype=torch.long)
    for number, step in enumerate(manifest["args"]["steps"]):
        window = span(step["s"], step["e"])
        ids[0, window] = recorded[f"ids_{number}"][0]
        block = step["block"]
        key_end = (window // block + 1) * block if block else step["kv_end"]
        segment = Segment(0, 0, window, key_end, write=True, predict=window)
        theirs = recorded[f"logits_{number}"][0]
        assert close(forward(decoder, pool, pages, ids, segment), theirs), number


def test_rows_of_a_shifted_family_predict_their_own_position():
    """Recorded rows predict the next position; ours are theirs moved by one, the first repeated."""
    _, recorded = parity("logits/dream")
    decoder = model("dream", None)
    for batch in "abc":
        ids, theirs = recorded[f"ids_{batch}"], recorded[f"logits_{batch}"][0]
        pool = KVPool(decoder.spec, device=CPU, dtype=torch.float32)
        pages = pool.reserve(pool.pages_for(ids.shape[1]))
        everything = span(0, ids.shape[1])
        segment = Segment(0, 0, everything, len(everything), write=True, predict=everything)
        ours = forward(decoder, pool, pages, ids, segment)
        assert close(ours, torch.cat((theirs[:1], theirs[:-1])))
        assert not close(ours, theirs)


THEIRS = ("gen_length", "block_length", "steps", "cfg_scale", "remasking", "logits_eos_inf",
          "threshold", "factor", "alg", "eps", "max_new_tokens")  # fmt: skip


@pytest.mark.parametrize("case", [c for c in CASES if c.startswith(("llada_g", "fastd", "dream"))])
def test_the_references_own_arguments_mean_the_same(case):
    """The keywords of LLaDA's, Fast-dLLM's and Dream's generate, word for word."""
    manifest, _ = parity(case)
    args = manifest["args"]
    family = case.partition("/")[0]
    info = Bench(model(manifest["model"], args.get("block_length"))).info
    theirs = {name: args[name] for name in THEIRS if name in args}
    if family == "fastdllm":
        theirs |= {"dual": {"dual_cache": True}, "prefix": {"use_cache": True}}.get(
            args["cache"], {}
        )
        if "threshold" in args or "factor" in args:
            del theirs["steps"]  # they ignore them
    ours = TRANSLATIONS[family](args)
    ours["max_new_tokens"] = args.get("gen_length") or args["max_new_tokens"]
    one, other = (bind(GenerationConfig.from_options(o), info).parts for o in (theirs, ours))
    assert one == other
