"""The live page for everybody: keyboard, names of controls, contrast, motion, dark mode."""

import re

import pytest

from tests.serve.browser import DESK, PHONE, Tab, chromium

MODES = ("Generate", "Infill", "Decisions")
CONTROLS = "button, input, select, textarea, summary, [tabindex='0']"
NAMELESS = """(controls) => [...document.querySelectorAll(controls)]
  .filter((one) => one.checkVisibility() && !one.labels?.length)
  .filter((one) => !(one.getAttribute("aria-label") || one.textContent).trim())
  .map((one) => one.outerHTML)"""
CONTRAST = """(selector) => {
  const light = ([r, g, b]) => {
    const part = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const one = document.querySelector(selector);
  const ground = (element) => getComputedStyle(element).backgroundColor;
  let behind = one;
  while (/, 0\\)|transparent/.test(ground(behind))) behind = behind.parentElement;
  const pair = [getComputedStyle(one).color, ground(behind)].map((c) => light(numbers(c)));
  return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
}"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def opened(browser, server):
    """Opens the page with options of Playwright; closes it in the end."""
    tabs = []

    def opened(size=DESK, **options):
        tabs.append(Tab(browser, size, **options))
        tabs[-1].open(f"{server.url}/")
        return tabs[-1]

    yield opened
    for tab in tabs:
        tab.close()


def focused(tab):
    """The id or name of what has the focus."""
    return tab.page.evaluate(
        "document.activeElement.id || document.activeElement.name || document.activeElement.tagName"
    )


def tab_to(tab, name, most=60):
    """Press Tab until an element has the focus."""
    for _ in range(most):
        if focused(tab) == name or tab.page.evaluate(f"document.activeElement.matches({name!r})"):
            return
        tab.page.keyboard.press("Tab")
    raise AssertionError(f"{name} cannot be reached, the focus is at {focused(tab)}")


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_everything_works_with_the_keyboard_alone(opened, size):
    tab = opened(size)
    press = tab.page.keyboard.press
    press("Tab")
    assert focused(tab) == "skip"
    tab_to(tab, "#prompt")
    outline = tab.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus is seen"
    press("Control+a")
    tab.page.keyboard.type("Sort these words: wolf, cow.")
    tab_to(tab, "#speed")
    tab.page.keyboard.type("as it")
    press("Control+Enter")
    tab.ended()
    assert tab.answer()
    tab_to(tab, ".canvas")
    inspector = tab.page.locator("[data-side=A] .inspector")
    assert re.match(r'".*" · step \d+ · confidence [\d.]+ · position 0$', inspector.text_content())
    press("ArrowRight")
    assert inspector.text_content().endswith("position 1")
    active = tab.page.get_attribute("[data-side=A] .canvas", "aria-activedescendant")
    assert tab.page.get_attribute(f"#{active}", "aria-label") == inspector.text_content()
    tab.page.keyboard.press("Shift+Tab")
    for _ in range(8):
        if focused(tab) == "range":
            break
        press("Shift+Tab")
    press("Home")
    assert tab.page.text_content("#told").startswith("0 /")
    assert len(tab.cells("mask")) == 64
    press("ArrowRight")
    assert tab.page.get_attribute("#range", "aria-valuetext").startswith("step 1 of")


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_every_control_has_a_name_and_fits(opened, size):
    tab = opened(size)
    tab.page.check("#compare")
    for field in ("unmask", "blocks", "cache", "edit"):
        tab.page.select_option(f"#strategy-a [data-field='dlm.{field}']", index=1)
    for mode in MODES:
        tab.mode(mode)
        assert tab.page.evaluate(NAMELESS, CONTROLS) == []
        assert not tab.scrolls_sideways()
    assert tab.page.get_attribute(".answer-text", "aria-live") == "polite"
    assert tab.page.get_attribute("html", "lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read(opened, scheme):
    tab = opened(color_scheme=scheme)
    tab.page.select_option("#speed", "0")
    tab.run()
    background = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.page.mouse.move(0, 0)
    tab.page.wait_for_timeout(400)  # colours fade
    is_dark = sum(map(int, re.findall(r"\d+", background)[:3])) < 150
    assert is_dark == (scheme == "dark")
    for selector, least in {
        "h1": 7, "#prompt": 7, ".answer-text": 7, ".hint": 4.5, "#run": 4.5, "label": 4.5,
        ".figures dt": 4.5, ".segments :checked + span": 7, "#told": 4.5,
    }.items():  # fmt: skip
        assert tab.page.evaluate(CONTRAST, selector) >= least, selector


def test_nothing_moves_for_those_who_do_not_want_it(opened):
    tab = opened(reduced_motion="reduce")
    assert tab.page.input_value("#speed") == "0", "the answer comes at once"
    tab.page.evaluate(
        """() => {
          window.moved = 0;
          const act = Element.prototype.animate;
          Element.prototype.animate = function (...all) {
            window.moved += 1;
            return act.apply(this, all);
          };
        }"""
    )
    tab.run()
    tab.page.select_option("#speed", "40")
    tab.page.click("#play")
    tab.ended()
    assert tab.page.evaluate("window.moved") == 0


def test_pointing_at_a_token_tells_about_it(opened):
    tab = opened()
    tab.page.select_option("#speed", "0")
    tab.run()
    tab.page.hover(".cell.filled >> nth=2")
    assert "position 2" in tab.page.text_content("[data-side=A] .inspector")
    tab.page.click("text=Step >> nth=0")
    steps = tab.page.eval_on_selector_all(
        ".cell.filled", "all => all.map((one) => one.dataset.step)"
    )
    assert all(1 <= int(step) <= tab.steps for step in steps)
