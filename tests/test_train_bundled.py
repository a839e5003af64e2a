"""The training program: objectives that leak nothing, and checkpoints that load."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import dlm
from dlm.model.decoder import Decoder
from dlm.model.loading import load_model, spec_of

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "examples" / "train_bundled.py"
sys.path.append(str(PROGRAM.parent))

from bundled_data import EOS, LONG_BUCKET, MASK, Batch, batches, load_tokenizer, prompt_ids  # noqa: E402
from bundled_export import Training, config_of, weights_of  # noqa: E402
from bundled_muon import Muon, orthogonal  # noqa: E402
from bundled_objectives import fill, fill_blocks, go_on, importance, lesson  # noqa: E402
from bundled_run import new_run, train_step  # noqa: E402
from bundled_shapes import SHAPES  # noqa: E402
from train_bundled import MALLOC, app  # noqa: E402


def batch(rows=6, length=32):
    """Rows of a prompt, an answer and a tail of ends."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(20, 400, (rows, length), generator=generator)
    ids[:, -6:] = EOS
    return Batch(ids, torch.tensor([5, 8, 11, 16, 3, 9])[:rows])


def generator():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_asked_stands_in_the_answer_and_is_hidden(shape):
    asked = lesson(SHAPES[shape], batch(), generator(), plain=True)
    given = batch()
    assert asked.scored.any()
    assert asked.weight[asked.scored].min() > 0
    length = given.ids.shape[1]
    rows, columns = asked.scored.nonzero(as_tuple=True)
    ahead = int(shape == "tiny-ar")
    assert (columns < length).all()
    assert (columns + ahead >= given.prompt_lengths[rows]).all(), "nothing of the prompt is asked"
    assert torch.equal(asked.target[asked.scored], given.ids[rows, columns + ahead])
    if not ahead:
        assert (asked.seen[asked.scored] == MASK).all()


def test_emphasis_changes_the_mix():
    pieces = load_tokenizer(ROOT / "dlm/model/bundled/tiny/tokenizer.model")
    start = prompt_ids(pieces, "Lines of ")[2]
    stream = batches(pieces, 3, tokens=256, emphasis={"sudoku": 1e9})
    drawn = [next(stream).ids[:, 2].unique().tolist() for _ in range(4)]
    assert all(len(first) == 1 and first != [start] for first in drawn), "Sudokus begin alike"


@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (16, 16)])
def test_muon_is_that_of_torch_but_for_its_precision(shape):
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
    settings = {"lr": 3e-3, "weight_decay": 0.05}
    pair = (
        Muon([ours], **settings),
        torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", **settings),
    )
    for _ in range(5):
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        for optimizer in pair:
            optimizer.step()
    assert ours.allclose(theirs, atol=2e-4)
    moved = (ours - 1).abs().max()
    assert moved > 5e-3


def test_orthogonal_matrices_have_singular_values_near_one():
    matrices = torch.randn(3, 12, 30, generator=generator())
    values = torch.linalg.svdvals(orthogonal(matrices))
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3


def test_a_short_answer_counts_more_a_token_and_its_tail_little():
    given = batch(rows=2)
    response = torch.arange(32)[None] >= given.prompt_lengths[:, None]
    found = importance(given.ids, response)
    assert float(found.sum()) == pytest.approx(float(response.sum()), rel=1e-5)
    assert (found[~response] == 0).all()
    answers = [32 - 5 - 5, 32 - 8 - 5]  # with the first end
    for row, (start, answer) in enumerate(zip((5, 8), answers, strict=True)):
        whole = found[row, start : start + answer]
        assert torch.allclose(whole, whole[0].expand(answer))
        assert torch.allclose(found[row, start + answer :], whole[0] / 10)
    ratio = float(found[1, 8] / found[0, 5])
    assert ratio == pytest.approx((answers[0] / answers[1]) ** 0.5)


def test_a_fifth_of_the_rows_learn_to_doubt_what_they_see():
    rows, length = 400, 32
    ids = torch.randint(20, 400, (rows, length), generator=generator())
    given = Batch(ids, torch.full((rows,), 8))
    asked = fill(given, generator(), block_share=0.0, edit_share=0.2)
    visible = asked.scored & ~asked.masked
    assert 0.1 < float(visible.any(dim=1).float().mean()) < 0.3
    wrong = (asked.seen != ids)[visible].float().mean()
    assert 0.06 < float(wrong) < 0.14


def test_blocks_are_filled_from_clean_blocks_before_them():
    """Logits of a noised block do not change with clean tokens of its own and of later blocks."""
    spec, given = SHAPES["tiny-block"], batch(rows=2)
    net = Decoder(spec).eval()
    asked = fill_blocks(given, generator(), spec.block_length)
    length = given.ids.shape[1]

    def states(seen):
        with torch.no_grad():
            return net.dense(seen, asked.mask, asked.positions)[:, :length]

    before = states(asked.seen)
    for start in range(0, length, spec.block_length):
        changed = asked.seen.clone()
        changed[:, length + start :] = 7
        after = states(changed)
        end = start + spec.block_length
        assert torch.allclose(after[:, :end], before[:, :end], atol=1e-5)
        if end < length:
            assert not torch.allclose(after[:, end:], before[:, end:], atol=1e-3)


def test_the_next_token_is_asked_up_to_the_first_end():
    given = batch(rows=1)
    asked = go_on(given)
    length, start = given.ids.shape[1], int(given.prompt_lengths[0])
    first_end = length - 6
    assert asked.scored[0].nonzero().flatten().tolist() == list(range(start - 1, first_end))
    assert asked.target[0, first_end - 1] == EOS
    assert torch.equal(asked.mask, torch.ones(length, length).tril().bool())


@pytest.mark.parametrize("layers", [2, 6])
def test_a_net_starts_where_a_shallower_one_ended(layers, tmp_path):
    """Its further layers add nothing at first, and learn."""
    run = new_run(SHAPES["tiny"], 1)
    shallow = new_run(replace(SHAPES["tiny"], layers=layers), 2)
    save_file(weights_of(shallow.net), tmp_path / "model.safetensors")
    config = json.dumps(config_of(shallow.net.spec))
    (tmp_path / "config.json").write_text(config)
    Training({"CPU thread": 12.5}, 1000).write(tmp_path)
    run.start_from(tmp_path)
    ids = batch().ids
    before = load_model(tmp_path, device="cpu", dtype="float32")
    with torch.no_grad():
        assert torch.allclose(run.net.dense(ids), before.dense(ids), atol=1e-5)
        assert torch.allclose(run.average.dense(ids), before.dense(ids), atol=1e-5)
    train_step(run, run.net.dense, lesson(run.net.spec, batch(), generator()), lr=1e-3)
    last = run.net.layers[-1]
    assert float(last.mlp.down.weight.detach().abs().max()) > 0
    assert run.training.tokens == 1000 + batch().ids.numel()


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a tokenizer."""
    folder = tmp_path_factory.mktemp("work")
    call("tokenizer", "--work", folder, "--examples", "3000")
    return folder


def call(*arguments):
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture
def call_here(monkeypatch):
    """The same in this process, with little to validate on."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    threads = torch.get_num_threads()
    for name, value in MALLOC.items():
        monkeypatch.setenv(name, value)  # else it starts anew
    less = partial(batches, tokens=256)
    monkeypatch.setattr("train_bundled.batches", lambda *given, tokens: less(*given))
    yield lambda *arguments: app([*map(str, arguments)], standalone_mode=False)
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("shape", SHAPES)
def test_from_nothing_to_a_checkpoint_that_loads(shape, work, tmp_path, request):
    """One of them as users start it."""
    run_program = call if shape == "tiny" else request.getfixturevalue("call_here")
    folder = tmp_path / shape
    few = ("--steps", 3, "--tokens", 512, "--no-compiled")
    run_program("train", "--shape", shape, "--work", work, *few)
    run_program("export", "--shape", shape, "--work", work, "--folder", folder)
    assert spec_of(folder).attention == SHAPES[shape].attention
    run = new_run(SHAPES[shape], 0)
    run.load(work / f"{shape}.pt")
    loaded = load_model(folder, device="cpu").state_dict()
    for name, ours in run.average.state_dict().items():
        assert torch.equal(loaded[name], ours.bfloat16().float()), name
    facts = json.loads((folder / "training.json").read_text())
    assert facts.get("canvas") == (LONG_BUCKET if shape == "tiny" else None)
    assert shape in (folder / "README.md").read_text()
    if shape == "tiny-ar":
        engine = dlm.load("tiny", device="cpu")
        with pytest.raises(dlm.InvalidRequest):  # another tokenizer than the bundled one
            dlm.load("tiny", aux={"ar": folder}, device="cpu")
    else:
        engine = dlm.load(folder, device="cpu")
    answer = engine.generate("What is 1+1?", max_new_tokens=16, stop="none")
    assert len(answer.ids) <= 16
