"""The live page: `/` and the files beside it, which are package data."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

FOLDER: Final = Path(__file__).parents[1] / "page"
INDEX: Final = "index.html"
MEDIA: Final[Mapping[str, str]] = MappingProxyType(
    {
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".svg": "image/svg+xml",
    }
)
HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Cache-Control": "no-cache",  # a browser may keep a file, and asks if it is still right
        "Content-Security-Policy": "; ".join(
            [
                *("default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'"),
                *("connect-src 'self'", "base-uri 'none'", "form-action 'self'"),
                "frame-ancestors 'none'",
            ]
        ),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
)

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file as it is sent: its bytes, media type and entity tag."""

    content: bytes
    media: str
    tag: str


def _read(path: Path) -> PageFile:
    content = path.read_bytes()
    if path.name == INDEX:  # its files lie beside it in the folder, and below /page/ on the server
        content = re.sub(rb'\b(src|href)="(?=[a-z]+\.(?:js|css|svg)")', rb'\1="page/', content)
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return PageFile(content, MEDIA[path.suffix], tag)


FILES: Final[Mapping[str, PageFile]] = MappingProxyType(
    {path.name: _read(path) for path in sorted(FOLDER.iterdir()) if path.suffix in MEDIA}
)


@router.get("/")
async def index(request: Request) -> Response:
    """The page."""
    return _answer(request, FILES[INDEX])


@router.get("/page/{file}")
async def page_file(request: Request, file: str) -> Response:
    """A script, style or picture of the page."""
    if file == INDEX or file not in FILES:
        raise HTTPException(404)
    return _answer(request, FILES[file])


def _answer(request: Request, found: PageFile) -> Response:
    headers = {**HEADERS, "ETag": found.tag}
    if found.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(found.content, 200, headers, found.media)
