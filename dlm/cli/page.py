"""One HTML file that shows a trace: the server's page with its files and the trace inside."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final
from urllib.parse import quote

import dlm
from dlm.cli.trace import Trace, trace_lines

FOLDER: Final = Path(dlm.__file__).parent / "serve" / "page"
LINKED: Final = re.compile(
    r'<link rel="(?:icon|stylesheet)" href="([a-z]+\.(?:svg|css))">'
    r'|<script src="([a-z]+\.js)"></script>'
)
PLACE: Final = '<script type="application/jsonl" id="saved-trace" data-row="0"></script>'
"""The element of the page that holds a trace."""


def write_page(trace: Trace, row: int, path: Path) -> None:
    """Write the page; `row` is the choice that it shows first.

    Raises `InvalidRequest` if the trace lacks the choice.
    """
    trace.check_row(row)
    page = LINKED.sub(_inside, (FOLDER / "index.html").read_text(encoding="utf-8"))
    before, _, after = page.partition(PLACE)
    lines = trace_lines(trace.events, trace.model, trace.texts)
    # A token may spell the end of the script; `<` stands in texts alone, where JSON can escape it.
    saved = "".join(json.dumps(line).replace("<", "\\u003c") + "\n" for line in lines)
    open_tag = PLACE.removesuffix("</script>").replace('data-row="0"', f'data-row="{row}"')
    path.write_text(f"{before}{open_tag}\n{saved}</script>{after}", encoding="utf-8")


def _inside(reference: re.Match[str]) -> str:
    """The element that holds the file which another one refers to."""
    name = reference[1] or reference[2]
    text = (FOLDER / name).read_text(encoding="utf-8")
    if name.endswith(".js"):
        return f"<script>\n{text}</script>"
    if name.endswith(".css"):
        return f"<style>\n{text}</style>"
    return f'<link rel="icon" href="data:image/svg+xml,{quote(text)}">'
