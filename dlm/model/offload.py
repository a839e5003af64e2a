"""A model that does not fit its device: its last layers wait in main memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from dlm.errors import InvalidRequest
from dlm.model.decoder import Decoder

# Part of the free device memory that weights may take; keys, values, activations need the rest.
SHARE = 0.85


def fits(decoder: Decoder, dtype: torch.dtype, device: torch.device) -> bool:
    """True if all weights fit `device`; main memory is taken on trust."""
    if device.type != "cuda":
        return True
    return weight_bytes(decoder, dtype) <= free_bytes(device)


def weight_bytes(decoder: Decoder, dtype: torch.dtype) -> int:
    """Bytes of all parameters in `dtype`, a tied head counted once."""
    return sum(parameter.numel() for parameter in decoder.parameters()) * dtype.itemsize


def free_bytes(device: torch.device) -> int:
    """Bytes that weights may take on a CUDA device now."""
    return int(torch.cuda.mem_get_info(device)[0] * SHARE)


def device_map(
    decoder: Decoder,
    dtype: torch.dtype,
    device: torch.device,
    budget: Mapping[int | str, int] | None = None,
) -> dict[str, torch.device]:
    """Module name -> device: as many whole layers on `device` as fit, the others on the CPU.

    `budget` gives bytes per CUDA index and for "cpu"; by default all that is free.
    Raises `InvalidRequest` when device and main memory together are too small.
    """
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_max_memory

    index = device.index or 0
    if budget is None:
        budget = {index: free_bytes(device), "cpu": get_max_memory()["cpu"]}
    names = infer_auto_device_map(
        decoder, dict(budget), no_split_module_classes=["Layer"], dtype=dtype
    )
    if "disk" in names.values():
        raise InvalidRequest(
            "model",
            f"needs {weight_bytes(decoder, dtype) / 1e9:.3g} GB in {dtype}, more than device and "
            f"main memory have free ({sum(budget.values()) / 1e9:.3g} GB)",
        )
    return {
        name: torch.device("cuda", place) if place != "cpu" else torch.device("cpu")
        for name, place in names.items()
    }


def dispatch(decoder: Decoder, where: Mapping[str, torch.device], main: torch.device) -> None:
    """Let every module of a split model run on `main`, its weights fetched as it runs."""
    if len(set(where.values())) == 1:
        return
    from accelerate import dispatch_model

    names = {name: place.index if place.type == "cuda" else "cpu" for name, place in where.items()}
    dispatch_model(decoder, names, main_device=main.index or 0)
