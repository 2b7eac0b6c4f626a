"""The page in a real browser, with no network: what it shows is what is in its JSON."""

import base64
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headsurgeon.evaluation.attention_samples import AttentionSamples, packed_map
from headsurgeon.heads import HeadId
from headsurgeon.report import write_page
from headsurgeon.report.head_moments import HeadMoments
from headsurgeon.report.quantised import Packed, unpack
from tests.browser import Browser, chromium
from tests.test_page import NASTY, data, moments, page

HEADS = 8


def sampled(model: HeadMoments, token: str = "the") -> HeadMoments:
    attention = np.tril(np.ones((5, 5))) / np.arange(1, 6)[:, None]
    sample = AttentionSamples(
        model="m",
        corpus="text:c",
        split="test",
        tokens=("</s>", token, "b", "c", "d"),
        maps={HeadId(1, 2): packed_map(attention)},
    )
    return replace(model, samples={"untouched": sample, "now": sample})


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = (sampled(moments(6, HEADS, 20)), moments(4, 4, 3, "other", 1))
    return write_page(page(heads=models), tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture
def opened(browser: Browser, shown: Path) -> Iterator[Browser]:
    browser.size(1280)
    browser.prefer("light")
    browser.open(shown)
    yield browser
    assert browser.console() == []
    assert [url for url in browser.logged() if not url.startswith("file://")] == []


def values(path: Path, name: str, model: int = 0) -> np.ndarray:
    """A statistic as the JSON of the page has it, [moment, head]."""
    found = data(path.read_text(encoding="utf-8"))["models"][model]  # type: ignore[index]
    stat = found["stats"][name]
    count = len(found["moments"]) if stat["moves"] else 1
    return unpack(Packed(stat["low"], stat["step"], stat["text"]), count)


def label(browser: Browser, head: int) -> str:
    script = "return document.querySelector(arguments[0]).getAttribute('aria-label')"
    return str(browser.run(script, f'[data-head="{head}"]'))


def colour(browser: Browser, selector: str) -> str:
    script = "return getComputedStyle(document.querySelector(arguments[0])).backgroundColor"
    return str(browser.run(script, selector))


def test_the_map_shows_the_numbers_of_the_json_at_every_step(opened: Browser, shown: Path) -> None:
    mass = values(shown, "mass")
    for moment in (19, 0, 7):
        opened.choose("#step", str(moment))
        for head in (0, 13, 47):
            assert label(opened, head).endswith(f" {mass[moment, head]:.3f}")
        sick = int((np.round(mass[moment], 9) > 0.5).sum())
        assert f"{sick} sick" in opened.text("#moment")


def test_the_table_shows_all_heads_at_that_step(opened: Browser, shown: Path) -> None:
    opened.choose("#step", "5")
    opened.run("document.getElementById('all').open = true")
    opened.run("return new Promise(resolve => setTimeout(resolve, 50))")
    script = (
        "return [...document.querySelectorAll('#heads-table tbody tr')]"
        ".map(row => [...row.children].map(cell => cell.textContent))"
    )
    rows = opened.run(script)
    mass = values(shown, "mass")[5]
    assert [row[0] for row in rows] == [f"L{n // HEADS}H{n % HEADS}" for n in range(6 * HEADS)]
    assert [row[3] for row in rows] == [f"{each:.3f}" for each in mass]


def test_arrow_keys_move_and_enter_opens_a_head(opened: Browser, shown: Path) -> None:
    keys = {"right": "\ue014", "down": "\ue015", "enter": "\ue007", "home": "\ue011"}
    assert opened.run("return document.querySelectorAll('#grid [tabindex=\"0\"]').length") == 1
    opened.run("document.querySelector('#grid [tabindex=\"0\"]').focus()")
    opened.press(keys["right"])
    opened.press(keys["right"])
    opened.press(keys["down"])
    assert opened.run("return document.activeElement.dataset.head") == str(HEADS + 2)
    opened.press(keys["enter"])
    said = opened.text("#head")
    assert said.startswith("L1H2")
    assert f"{values(shown, 'mass')[-1, HEADS + 2]:.3f}" in said
    assert "not recovered: it looks like a head that was not trained." in said
    assert "head=L1H2" in opened.driver.current_url
    opened.press(keys["home"])
    assert opened.run("return document.activeElement.dataset.head") == str(HEADS)


def test_an_opened_head_shows_its_attention_before_and_now(opened: Browser) -> None:
    opened.click(f'[data-head="{HEADS + 2}"]')
    assert opened.run("return document.querySelectorAll('#head canvas').length") == 2
    pixels = opened.run(
        "const canvas = document.querySelector('#head canvas');"
        "return [...canvas.getContext('2d').getImageData(0, 0, 5, 5).data]"
    )
    # above the diagonal nothing is drawn
    assert pixels[4 * 4 + 3] == 0
    assert pixels[3] == 255


def test_a_link_opens_the_page_where_it_was(browser: Browser, shown: Path) -> None:
    browser.open(shown, "#head=L2H3&step=4&stat=entropy&view=difference")
    assert browser.text("#head").startswith("L2H3")
    assert browser.text("#moment").startswith("step 4")
    entropy = values(shown, "entropy")
    change = f"{entropy[5, 19] - entropy[0, 19]:.2f}".replace("-", "−")
    assert label(browser, 19).endswith(change)
    assert browser.run("return document.querySelector('[name=view]:checked').value") == "difference"
    # reinitialised and not trained yet
    browser.run(
        "const step = document.getElementById('step'); step.value = 1;"
        "step.dispatchEvent(new Event('input'))"
    )
    assert browser.driver.current_url.endswith("#head=L2H3&step=0&stat=entropy&view=difference")


def test_another_statistic_another_model_and_another_order(opened: Browser, shown: Path) -> None:
    opened.choose("#stat", "entropy")
    assert label(opened, 3).endswith(f"entropy {values(shown, 'entropy')[-1, 3]:.2f}")
    assert "entropy (nats)" in opened.text("#legend")
    opened.click("#sorted")
    opened.choose("#set", "1")
    assert opened.run("return document.querySelectorAll('#grid button').length") == 16
    assert label(opened, 5).endswith(f"{values(shown, 'entropy', 1)[-1, 5]:.2f}")


def test_zones_are_counted_with_both_denominators(opened: Browser, shown: Path) -> None:
    mass = values(shown, "mass")
    change = np.abs(mass[-1] - mass[0])
    outside = [n for n in range(6 * HEADS) if n not in (2, HEADS + 2)]
    free = [n for n in outside if n >= HEADS]
    drifted = int((change[free] > 0.05).sum())
    assert f"{drifted} of {len(free)} ({len(outside)})" in opened.text("#zones")


def test_the_slider_plays_and_stops(opened: Browser) -> None:
    opened.choose("#step", "0")
    opened.click("#play")
    moved = (
        "return new Promise(resolve => { const wait = () => "
        "Number(document.getElementById('step').value) > 1 ? resolve(true) : setTimeout(wait, 20);"
        "wait(); })"
    )
    assert opened.run(moved)
    opened.click("#play")
    assert opened.text("#play") == "Play"


def test_light_and_dark_follow_the_system_and_the_switch(opened: Browser) -> None:
    light = colour(opened, "body")
    opened.prefer("dark")
    dark = colour(opened, "body")
    assert dark != light
    opened.click("#theme")
    assert colour(opened, "body") == light
    opened.click("#theme")
    assert colour(opened, "body") == dark


def test_the_policy_holds_off_what_is_not_the_pages_own(opened: Browser) -> None:
    ran = opened.run(
        "const script = document.createElement('script'); script.textContent = 'window.ran = 1';"
        "document.body.append(script); return window.ran || 0"
    )
    assert ran == 0
    assert any("Content Security Policy" in line for line in opened.console())
    fetched = opened.driver.execute_async_script(
        "fetch('https://example.org/').then(() => arguments[0](1), () => arguments[0](0))"
    )
    assert fetched == 0
    opened.console()


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_of_accessibility(opened: Browser, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_core_python.base", reason="axe-core-python is not installed")
    opened.size(width)
    opened.prefer(scheme)
    opened.click(f'[data-head="{HEADS + 2}"]')
    opened.run("for (const each of document.querySelectorAll('details')) each.open = true")
    opened.run(axe.AXE_SCRIPT)
    found = opened.driver.execute_async_script("axe.run().then(arguments[0])")
    serious = {
        fault["id"]: [node["html"][:120] for node in fault["nodes"][:3]]
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
    }
    assert serious == {}


def test_a_phone_scrolls_in_one_direction_alone(opened: Browser) -> None:
    opened.size(375)
    assert opened.run("return document.documentElement.scrollWidth") <= 375


def test_what_others_wrote_is_text_and_nothing_else(browser: Browser, tmp_path: Path) -> None:
    model = replace(sampled(moments(name=NASTY), NASTY), about=NASTY, recovered={"L1H2": NASTY})
    path = write_page(page(title=NASTY, lead=(NASTY,), heads=(model,)), tmp_path / "nasty.html")
    browser.open(path, "#head=L1H2")
    assert browser.text("h1") == "</script><script>alert(1)</script>[bold]\\x1b[31m\\u202e"
    assert "<script>alert(1)</script>" in browser.text("#head")
    assert browser.run("return document.scripts.length") == 2
    assert browser.console() == []


def test_a_large_run_opens_and_says_how_long_it_took(
    browser: Browser, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    path = write_page(page(heads=(moments(24, 16, 100),)), tmp_path / "large.html")
    browser.open(path)
    assert browser.run("return document.querySelectorAll('#grid button').length") == 384
    timing = "return performance.getEntriesByType('navigation')[0].loadEventEnd"
    record_property("milliseconds", browser.run(timing))
    record_property("bytes", path.stat().st_size)


def test_maps_are_kept_to_the_nearest_byte() -> None:
    (kept,) = sampled(moments()).samples["now"].maps.values()
    assert len(base64.b64decode(kept)) == 15
