"""`/v1/models` and `/v1/dlm/strategies`: what is served, and the options there are."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol, get_type_hints

from fastapi import APIRouter, Request
from fastapi.responses import Response

import dlm
from dlm.search.names import POLICIES, VERIFIERS
from dlm.serve.options import EFFORTS, preset_of
from dlm.serve.routes.common import json_response, service_of
from dlm.serve.search_fields import SEARCH_FIELDS

router = APIRouter()


class Registered(Protocol):
    """A registry: names, and the class of each."""

    def names(self) -> Sequence[str]:
        """All of them."""
        ...

    def load(self, name: str) -> type:
        """The class of one."""
        ...


@router.get("/v1/models")
async def models(request: Request) -> Response:
    """The one model that is served."""
    return json_response({"object": "list", "data": [service_of(request).card()]})


@router.get("/v1/models/{name:path}")
async def model(request: Request, name: str) -> Response:
    """The card of a model."""
    service = service_of(request)
    service.check_model(name)
    return json_response(service.card())


@router.get("/v1/dlm/strategies")
async def strategies(request: Request) -> Response:
    """Every part, policy, verifier, preset and option, and traits of the model."""
    service = service_of(request)
    info, mask = service.info, service.info.mask_id
    traits = {
        "id": service.name,
        "attention": info.attention,
        "max_length": service.max_length,
        "block_length": info.block_length,
        "mask_id": mask,
    }
    told = {
        "object": "dlm.strategies",
        "model": traits,
        "kinds": {kind: _parts(registry) for kind, registry in dlm.KINDS.items()},
        "policies": [
            {**_part(name, one), "chance": one.diverse is not False}
            for name, one in _classes(POLICIES)
        ],
        "verifiers": _verifiers(run_programs=service.settings.run_programs),
        "presets": _presets(info),
        "effort": {effort: preset_of(effort, info) for effort in EFFORTS},
        "options": [
            {"name": name, **{k: getattr(field, k) for k in ("type", "default", "meaning")}}
            for name, field in _fields().items()
        ],
        "defaults": {name: str(value) for name, value in service.settings.defaults.items()},
    }
    return json_response(told)


def _presets(info: dlm.ModelInfo) -> dict[str, Any]:
    """The presets that the model can have."""
    return {
        name: {"use": preset.use, "evidence": preset.evidence, "options": dict(options)}
        for name, preset in dlm.PRESETS.items()
        if (options := preset.options(info)) is not None
    }


def _fields() -> dict[str, Any]:
    """The options of the `dlm` object, those of a search last."""
    own = {name: field for name, field in dlm.FIELDS.items() if field.http}
    return {**own, **SEARCH_FIELDS}


def _verifiers(*, run_programs: bool) -> list[dict[str, Any]]:
    """The verifiers that a request may ask for."""
    classes: dict[str, Any] = dict(_classes(VERIFIERS))
    return [
        _part(name, one)
        for name, one in classes.items()
        if not (one.oracle or one.trusted_only or (one.runs_programs and not run_programs))
    ]


def _parts(registry: Registered) -> list[dict[str, Any]]:
    """The parts of a registry."""
    return [_part(name, cls) for name, cls in _classes(registry)]


def _classes(registry: Registered) -> Iterator[tuple[str, Any]]:
    """The classes of a registry, but those of other packages that cannot be imported."""
    for name in registry.names():
        with suppress(dlm.InvalidRequest):
            yield name, registry.load(name)


def _part(name: str, cls: Any) -> dict[str, Any]:
    text, hints = inspect.getdoc(cls) or "", get_type_hints(cls)
    arguments = (field for field in dataclasses.fields(cls) if not field.metadata.get("bound"))
    return {
        "name": name,
        "summary": " ".join(text.split("\n\n", maxsplit=1)[0].split()),
        "tier": getattr(cls, "tier", None),
        "papers": list(dict.fromkeys(re.findall(r"arXiv\s+(\d{4}\.\d{4,5})", text))),
        "arguments": [_argument(field, hints[field.name]) for field in arguments],
    }


def _argument(field: dataclasses.Field[Any], hint: Any) -> dict[str, Any]:
    """An argument; its type is spelled out, as `float` or `Literal['even', 'linear']`."""
    kind = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
    told: dict[str, Any] = {"name": field.name, "type": kind}
    if field.default is not dataclasses.MISSING:
        told["default"] = field.default if _is_plain(field.default) else repr(field.default)
    return told


def _is_plain(value: Any) -> bool:
    return (
        value is None
        or isinstance(value, str | bool | int)
        or (isinstance(value, float) and abs(value) < float("inf"))
    )
