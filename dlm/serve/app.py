"""`create_app`: the routes, the errors and the life of the engine in one FastAPI app."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

import dlm
from dlm.serve.errors import ErrorReply, install_errors
from dlm.serve.gate import install
from dlm.serve.routes import (
    chat,
    completions,
    decisions,
    models,
    operations,
    page,
    responses,
    tokens,
)
from dlm.serve.service import Service
from dlm.serve.settings import ServerSettings


def create_app(engine: dlm.Engine, settings: ServerSettings | None = None) -> FastAPI:
    """A server of one engine as an ASGI app; `app.state.service` is its state.

    The engine's threads end with the app.
    """
    settings = settings or ServerSettings()
    service = Service(engine, settings)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        await service.warm_up()
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(
        title="dlm",
        version=dlm.__version__,
        description="OpenAI's API for masked diffusion language models.",
        lifespan=life,
        redirect_slashes=False,
        responses={"4XX": {"model": ErrorReply, "description": "refused"}},
        docs_url=None,  # its scripts would come from other hosts
        redoc_url=None,
    )
    app.state.service = service
    for family in (chat, completions, responses, decisions, tokens, models, operations):
        app.include_router(family.router)
    if settings.page:
        app.include_router(page.router)
    install_errors(app)
    install(app, settings, service.metrics)
    return app
