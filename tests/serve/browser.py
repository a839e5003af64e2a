"""The live page in a headless Chromium, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import dlm

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PAGE = Path(dlm.__file__).parent / "serve" / "page"
DESK, PHONE = (1280, 900), (400, 850)
COINS = "Sam starts with 23 coins, wins 47, loses 36, then quadruples what is left. How many?"
"""A prompt that the bundled model answers in several lines; with a long canvas it takes seconds."""
PATIENCE = 60_000
"""Milliseconds that anything may take on a busy machine."""


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser. Skips the test where Playwright or Chromium is missing."""
    api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"needs Chromium at {CHROMIUM}")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A tab, and what its console has told.

    page: Playwright's
    told: errors and warnings of the console, and exceptions that nobody caught
    """

    def __init__(self, browser: Any, size: tuple[int, int], **options: Any) -> None:
        width, height = size
        self.page = browser.new_page(viewport={"width": width, "height": height}, **options)
        self.page.set_default_timeout(PATIENCE)
        self.told: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.told.append(str(error)))

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.told.append(message.text)

    def open(self, url: str) -> None:
        """Load the page and wait until it knows whether a server answers."""
        self.page.goto(url)
        self.page.wait_for_selector("body:not([data-server=asking])")

    def set(self, **values: Any) -> None:
        """Fill fields by their ids."""
        for name, value in values.items():
            self.page.fill(f"#{name.replace('_', '-')}", str(value))

    def pick(self, field: str, value: str, side: str = "a") -> None:
        """Choose an option of a strategy, `field` as errors name it."""
        self.page.select_option(f"#strategy-{side} [data-field='{field}']", value)

    def mode(self, name: str) -> None:
        """Go to Generate, Infill or Decisions."""
        self.page.click(f"#modes >> text={name}")

    def run(self) -> None:
        """Run, and wait for the end of the answer and of its replay."""
        self.page.click("#run")
        self.ended()

    def ended(self) -> None:
        """Wait for the end of the run and of its replay."""
        self.page.wait_for_selector("#stop[disabled]", state="attached")
        self.page.wait_for_selector("#play[data-state=paused]", state="attached")

    def answer(self, side: str = "A") -> str:
        """The final text of a side."""
        return str(self.page.text_content(f"[data-side={side}] .answer-text"))

    def figure(self, name: str, side: str = "A") -> str:
        """A figure of a side, such as `forwards`."""
        return str(self.page.text_content(f"[data-side={side}] [data-figure={name}]"))

    def cells(self, kind: str, side: str = "A") -> list[str]:
        """The texts of the cells of a kind: mask, filled, given, end, after, reopened, ..."""
        cells = self.page.locator(f"[data-side={side}] .cell.{kind}")
        return [str(text) for text in cells.all_text_contents()]

    def seek(self, step: int) -> None:
        """Move the scrubber."""
        self.page.evaluate(
            """(step) => {
              const range = document.getElementById("range");
              range.value = step;
              range.dispatchEvent(new Event("input"));
            }""",
            step,
        )

    def masks_at_each_step(self) -> list[int]:
        """The masks of side A at each place of the scrubber, which ends at the last one."""
        counts: list[int] = self.page.evaluate(
            """() => {
              const range = document.getElementById("range"), counts = [];
              for (let step = 0; step <= range.max; step++) {
                range.value = step;
                range.dispatchEvent(new Event("input"));
                counts.push(document.querySelectorAll("[data-side=A] .cell.mask").length);
              }
              return counts;
            }"""
        )
        return counts

    @property
    def steps(self) -> int:
        """The last recorded step."""
        return int(self.page.get_attribute("#range", "max") or 0)

    def save(self, path: Path) -> Path:
        """Save the run as a trace."""
        with self.page.expect_download() as found:
            self.page.click("#save")
        found.value.save_as(path)
        return path

    def scrolls_sideways(self) -> bool:
        """True if the page is wider than the window."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))

    def close(self) -> None:
        """Close the tab; nothing may have been told."""
        self.page.close()
        assert self.told == []


def scripts(tab: Tab, *names: str) -> None:
    """Load scripts of the page into an empty tab."""
    tab.page.goto("about:blank")
    for name in names:
        tab.page.add_script_tag(path=PAGE / name)
