"""Plain logits: padding changes nothing, and broken weights are told as the checkpoint's fault."""

import asyncio
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from dlm.cli.app import run
from dlm.engine.async_engine import AsyncEngine
from dlm.engine.load import BUNDLED
from dlm.errors import CheckpointError, InvalidRequest
from tests.engine.test_engine import FAMILIES, engine_of

ROWS = [[5, 9, 33, 12, 40, 7, 61, 8, 30, 11, 3], [17, 4, 63, 63, 21], [63], [], [44] * 8]
SIDES = {"left": 1.0, "right": 0.0, "both": 0.5}


def padded(rows, share, length=13):
    """Ids and mask with `share` of each row's padding before its tokens."""
    ids, mask = torch.zeros(len(rows), length, dtype=torch.long), torch.zeros(len(rows), length)
    for number, row in enumerate(rows):
        first = int((length - len(row)) * share)
        ids[number, first : first + len(row)] = torch.tensor(row, dtype=torch.long)
        mask[number, first : first + len(row)] = 1
    return ids, mask


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", SIDES)
def test_logits_are_those_of_the_rows_without_padding(family, side):
    engine = engine_of(family)
    ids, mask = padded(ROWS, SIDES[side])
    found = engine.logits(ids, mask)
    assert not found[mask == 0].any()
    for row, tokens in enumerate(ROWS):
        if tokens:
            alone = engine.logits([tokens])[0]
            assert torch.allclose(found[row][mask[row] == 1], alone, atol=1e-4)
    for unused in (0, 62):  # what stands at the padding makes no difference
        other = ids.masked_fill(mask == 0, unused)
        assert torch.equal(engine.logits(other, mask), found)


@pytest.mark.parametrize("family", FAMILIES)
def test_some_positions_of_padded_rows(family):
    engine = engine_of(family)
    ids, mask = padded(ROWS, 1.0)
    where = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    some = engine.logits(ids, mask, where)
    assert torch.allclose(some, engine.logits(ids, mask)[where], atol=1e-5)


def test_the_first_logits_of_a_shifted_row_are_repeated_at_its_first_token():
    ids, mask = padded([[5, 9, 33]], 1.0, length=6)
    (found,) = engine_of("shifted").logits(ids, mask)
    assert torch.equal(found[3], found[4])
    assert not torch.equal(found[4], found[5])


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        ([[5, 6, 7, 8]], [[1, 0, 1, 1]], "`attention_mask`: padding may stand before and after"),
        ([[5, 6], [7, 8]], [[0, 1], [2, 1]], "`attention_mask`: must hold 0 and 1 alone"),
        ([[5, 6]], [[0.0, -1e9]], "`attention_mask`: must hold 0 and 1 alone"),
        ([[5, 6]], [[0.5, 1.0]], "`attention_mask`: must hold whole numbers, got fractions"),
        ([[5, 6.5]], None, "`ids`: must hold whole numbers, got fractions"),
        ([[5, 64]], None, "`ids`: ids must be between 0 and 63, got 64"),
        ([[5, -1]], [[1, 0]], "`ids`: ids must be between 0 and 63, got -1"),
        ([[5, 6], [7]], None, "`ids`: must be numbers of shape [B, L]"),
    ],
)
def test_wrong_ids_and_masks_are_refused(ids, mask, message):
    with pytest.raises(InvalidRequest) as refused:
        engine_of("block_causal").logits(ids, mask)
    assert message in str(refused.value)


def broken(value, name="layers.1.mlp.down.weight"):
    """An engine with one weight set to `value`."""
    engine = engine_of("full")
    with torch.no_grad():
        engine.model.get_parameter(name)[0, 0] = value
    return engine


WAYS = {
    "generate": lambda engine: engine.generate([5, 9], max_new_tokens=4),
    "batch": lambda engine: engine.generate([[5, 9], [7]], max_new_tokens=4),
    "stream": lambda engine: list(engine.stream([5, 9], max_new_tokens=4)),
    "map": lambda engine: list(engine.map([[5, 9]], max_new_tokens=4)),
    "async": lambda engine: asyncio.run(AsyncEngine(engine).generate([5, 9], max_new_tokens=4)),
    "submit": lambda engine: engine.submit([5, 9], max_new_tokens=4).result(),
    "logits": lambda engine: engine.logits([[5, 9, 63]]),
    "where": lambda engine: engine.logits([[5, 9, 63]], where=[[0, 0, 1]]),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_are_the_checkpoints_fault(way, value):
    engine = broken(value)
    with pytest.raises(CheckpointError, match=r"^the checkpoint's logits are not finite"):
        WAYS[way](engine)
    assert engine.kv.pages_in_use == 0


@pytest.mark.parametrize("name", ["head.weight", "embedding.weight", "norm.weight"])
@pytest.mark.parametrize("unmask", ["threshold(0.9)", "topk(steps=4)", "everything"])
def test_broken_weights_are_seen_wherever_they_are(name, unmask):
    engine = engine_of("full")
    with torch.no_grad():
        engine.model.get_parameter(name).view(-1)[::3] = torch.nan
    with pytest.raises(CheckpointError, match="not finite"):
        engine.generate([5, 9], max_new_tokens=4, unmask=unmask, blocks="whole")


def test_the_command_line_calls_no_checkpoint_a_bug(tmp_path, capsys):
    folder = shutil.copytree(BUNDLED / "tiny", tmp_path / "broken")
    tensors = load_file(folder / "model.safetensors")
    tensors[min(tensors)].view(-1)[3] = torch.inf
    save_file(tensors, folder / "model.safetensors")
    assert run(["generate", "hello", "--model", str(folder), "--max-new-tokens", "8"]) == 1
    out, error = capsys.readouterr()
    assert not out
    assert "the checkpoint's logits are not finite" in error
    assert "bug" not in error
