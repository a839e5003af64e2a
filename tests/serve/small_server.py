"""A small app behind the real gate and the real `serve`: `python -m tests.serve.small_server`.

`/v1/slow` streams a line each 50 ms until `/v1/finish` is asked for. The arguments are settings as
NAME=VALUE.
"""

import asyncio
import json
import sys
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from dlm.serve import gate
from dlm.serve.errors import error_response
from dlm.serve.facts import facts
from dlm.serve.metrics import Metrics
from dlm.serve.server import listening_socket, serve
from dlm.serve.settings import ServerSettings


class SmallService:
    """A service without an engine; `running` are the streams that are open."""

    def __init__(self):
        self.running, self.waiting, self.alive, self.draining = 0, 0, True, False

    def drain(self):
        self.draining = True

    def cut_off(self):
        """Its answers do not listen: they are cut by the end of the process."""

    def give_up(self):
        """Nobody waits for an engine."""


def small_app(settings):
    """The app; its state has the service, and the metrics behind `/metrics`."""

    @asynccontextmanager
    async def lifespan(app):
        if settings.model_id == "broken":
            raise RuntimeError("it cannot start")
        yield
        print("closed in order", file=sys.stderr, flush=True)

    app = FastAPI(lifespan=lifespan)
    service, finished = SmallService(), asyncio.Event()
    app.state.service = service
    metrics = app.state.metrics = Metrics(running=lambda: service.running)

    @app.get("/ready")
    async def ready():
        return JSONResponse({}, 503 if service.draining else 200)

    @app.post("/v1/echo")
    async def echo(request: Request):
        facts(request.scope).prompt_tokens = 3
        facts(request.scope).prompts = ["a secret prompt"]
        return {"bytes": len(await request.body())}

    @app.get("/v1/items/{name}")
    async def item(name: str):
        return {"name": name}

    @app.get("/v1/bug")
    async def bug():
        raise RuntimeError("a secret detail")

    @app.get("/v1/die")
    async def die():
        service.alive = False
        return {}

    @app.get("/v1/finish")
    async def finish():
        finished.set()
        return {}

    @app.get("/v1/slow")
    async def slow():
        if service.draining:
            return error_response(503, "about to end", "server_error", headers={"Retry-After": "1"})

        async def lines():
            service.running += 1
            try:
                number = 0
                while not finished.is_set():
                    yield f"part {number}\n"
                    number += 1
                    await asyncio.sleep(0.05)
                yield "the end\n"
            finally:
                service.running -= 1

        return StreamingResponse(lines(), media_type="text/plain")

    gate.install(app, settings, metrics)
    return app


def main(arguments):
    given = dict(argument.split("=", 1) for argument in arguments)
    settings = ServerSettings(**{name: json.loads(value) for name, value in given.items()})
    app = small_app(settings)
    return serve(app, app.state.service, settings, listening_socket(settings))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
