"""Probes and numbers: `/health`, `/ready`, `/version`, `/load`, `/metrics`."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter, Request
from fastapi.responses import Response

import dlm
from dlm.serve.errors import SERVER, error_response
from dlm.serve.routes.common import json_response, service_of

router = APIRouter()


@router.get("/health")
async def health(request: Request) -> Response:
    """200 while the engine works; 503 when it has died or the server is about to end."""
    service = service_of(request)
    if service.alive and not service.draining:
        return Response(status_code=200)
    why = "draining" if service.alive else "engine_dead"
    return error_response(503, f"not healthy: {why}", SERVER, code=why)


@router.get("/ready")
async def ready(request: Request) -> Response:
    """200 once the model has decoded a token and requests are taken."""
    service = service_of(request)
    if service.ready and service.alive and not service.draining:
        return json_response({"status": "ready", "model": service.name})
    return error_response(503, "not ready", SERVER, code="not_ready", headers={"Retry-After": "1"})


@router.get("/version")
async def versions(request: Request) -> Response:
    """Versions of dlm and of the libraries that decode."""
    return json_response(
        {
            "version": dlm.__version__,
            "torch": version("torch"),
            "transformers": version("transformers"),
            "device": str(service_of(request).engine.engine.kv.store.storage.device),
        }
    )


@router.get("/load")
async def load(request: Request) -> Response:
    """Rows that run and wait, and the most that may."""
    service = service_of(request)
    return json_response(
        {"running": service.running, "waiting": service.waiting, "max": service.places.most}
    )


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """The numbers of the server, for Prometheus."""
    body = service_of(request).metrics.render()
    return Response(body, media_type="text/plain; version=1.0.0; charset=utf-8")
