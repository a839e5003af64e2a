"""The server: OpenAI's HTTP API over one engine, and what only a diffusion model can show.

It needs the packages of the extra `serve`.
"""

from dlm.serve.app import create_app
from dlm.serve.settings import ServerSettings

__all__ = ["ServerSettings", "create_app"]
