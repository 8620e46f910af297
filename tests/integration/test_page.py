"""The page in a real browser, over a real service: what a person does with it, at a desk and on a phone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_requests import BAD_KEYS, check
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait
from serving import geotiff, picture, read, service

from serve_apps.access import new_key

pytestmark = pytest.mark.slow

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SECONDS = 90
WIDTHS = {"desk": (1280, 800), "phone": (390, 844)}


class Page:
    """The page as a person sees it.

    Args:
        driver: The browser.
        downloads: Folder it saves to.
    """

    def __init__(self, driver: webdriver.Chrome, downloads: Path) -> None:
        self.driver, self.downloads = driver, downloads

    def __getitem__(self, name: str) -> WebElement:
        return self.driver.find_element(By.ID, name)

    def wait(self, what: Callable[[], Any]) -> Any:
        """Until something is true; its value."""
        return WebDriverWait(self.driver, SECONDS, 0.05).until(lambda _: what())

    def choose(self, path: Path) -> None:
        """Picks a file, and waits for what comes of it."""
        self["file"].send_keys(str(path))
        self.wait(lambda: not self["working"].is_displayed() and self["refine"].is_enabled())

    def pixel(self, across: float, down: float) -> list[int]:
        """Colour of the canvas at a point in shares of its size."""
        script = """const c = document.getElementById("canvas");
            return [...c.getContext("2d").getImageData(c.width * arguments[0], c.height * arguments[1], 1, 1).data];"""
        return self.driver.execute_script(script, across, down)

    def pixels(self) -> str:
        """All of the canvas, to tell two states apart."""
        return self.driver.execute_script('return document.getElementById("canvas").toDataURL()')

    def saved(self, button: str, suffix: str) -> bytes:
        """What a download button saves."""
        self[button].click()
        path = self.wait(lambda: next(self.downloads.glob(f"*.{suffix}"), None))
        return path.read_bytes()

    def layout(self) -> dict[str, Any]:
        """How wide the document is, and what sticks out of the window."""
        script = """const shown = (e) => e.offsetParent !== null && getComputedStyle(e).opacity !== "0";
            const boxes = [...document.querySelectorAll("button, input, summary, h1, #viewer, aside, p, dd")]
              .filter(shown).map((e) => [e.id || e.tagName, e.getBoundingClientRect()]);
            return {width: document.documentElement.scrollWidth, window: innerWidth,
              out: boxes.filter(([, b]) => b.left < -0.5 || b.right > innerWidth + 0.5).map(([n]) => n)};"""
        return self.driver.execute_script(script)


@pytest.fixture(scope="module")
def key_line() -> tuple[str, str]:
    return new_key("tester")


@pytest.fixture(scope="module")
def url(
    ray_session: None, toy_model: Path, key_line: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys.write_text(key_line[1])
    with service(toy_model, access={"keys_file": str(keys)}) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if not (BROWSER and DRIVER):
        pytest.skip("no chromium and chromedriver; `make browser` installs them")
    downloads = tmp_path_factory.mktemp("downloads")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for word in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(word)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium's own does not run as root
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        yield Page(driver, downloads)
    finally:
        driver.quit()


@pytest.fixture
def page(url: str, browser: Page, key_line: tuple[str, str], request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page with its key, at a desk unless the test asks for another width; the browser logs no fault."""
    width, height = WIDTHS[getattr(request, "param", "desk")]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.driver.get(url)
    browser.driver.execute_script("sessionStorage.setItem('api-key', arguments[0])", key_line[0])
    browser.driver.get_log("browser")
    browser.driver.get(url)
    for old in browser.downloads.iterdir():
        old.unlink()
    browser.wait(lambda: "toy" in browser["model"].text)
    yield browser
    refused = "Failed to load resource: the server responded with a status of 4"
    faults = [line for line in browser.driver.get_log("browser") if refused not in line["message"]]
    assert not faults


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenes") / "scene.tif"
    path.write_bytes(geotiff(picture(120, 150)))
    return path


@pytest.mark.parametrize("case", BAD_KEYS)
def test_a_key_that_does_not_fit_is_refused(url: str, case: str) -> None:
    check(url, BAD_KEYS[case])


def shoot(page: Page, name: str) -> None:
    """Keeps a picture of all of the page where somebody wants to look at it."""
    if folder := os.environ.get("IDGBR_SCREENSHOTS"):
        import base64

        options = {"captureBeyondViewport": True}
        shot = page.driver.execute_cdp_cmd("Page.captureScreenshot", options)
        (Path(folder) / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))


def test_a_key_is_asked_for_and_used(url: str, browser: Page, key_line: tuple[str, str]) -> None:
    browser.driver.get(url)
    browser.driver.execute_script("sessionStorage.clear()")
    browser.driver.get(url)
    browser.wait(lambda: browser["key-dialog"].is_displayed())
    assert "Unauthorized" in browser["problem"].get_attribute("textContent")
    shoot(browser, "key")
    browser["key"].send_keys("not-this-one", Keys.ENTER)
    browser.wait(lambda: "is not known here" in browser["problem"].get_attribute("textContent"))
    browser.wait(lambda: browser["key-dialog"].is_displayed())
    browser["key"].clear()
    browser["key"].send_keys(key_line[0], Keys.ENTER)
    browser.wait(lambda: "toy" in browser["model"].text)
    assert not browser["problem"].is_displayed() and not browser["key-dialog"].is_displayed()


@pytest.mark.parametrize("page", list(WIDTHS), indirect=True)
def test_upload_stream_swipe_and_layers(page: Page, scene: Path, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["page"]
    shoot(page, f"{name}-empty")
    steps = []
    page.driver.execute_script(
        """window.steps = [];
        new MutationObserver(() => steps.push(document.getElementById("step").textContent))
          .observe(document.getElementById("step"), {childList: true});"""
    )
    page.driver.execute_script(
        'for (const [n, v] of [["steps", 3], ["samples", 2]]) { const e = document.getElementById(n);'
        ' e.value = v; e.dispatchEvent(new Event("input")); }'
    )
    page.choose(scene)
    assert not page["problem"].is_displayed(), page["problem"].text
    steps = page.driver.execute_script("return steps")
    assert "coarse map" in steps and any("sample 2 of 2, step 3 of 3" in step for step in steps)
    shares = [float(item.text.split()[-2]) for item in page["legend"].find_elements(By.TAG_NAME, "li")]
    assert len(shares) == 3 and sum(shares) == pytest.approx(100, abs=0.5)
    assert page["change"].text == "scene.tif" and "toy" in page["facts"].text and "Windows" in page["facts"].text
    assert page.layout()["out"] == [] and page.layout()["width"] == page.layout()["window"]
    shoot(page, f"{name}-result")
    # The handle, with a pointer and from the keyboard, and what it uncovers.
    before, handle = page.pixels(), page["swipe"]
    ActionChains(page.driver).drag_and_drop_by_offset(handle, -80, 0).perform()
    dragged = int(handle.get_attribute("aria-valuenow"))
    assert dragged < 48 and page.pixels() != before
    handle.send_keys(Keys.END)
    all_coarse = page.pixels()
    handle.send_keys(Keys.HOME)
    assert handle.get_attribute("aria-valuenow") == "0" and page.pixels() != all_coarse
    # Zoom and pan, and back.
    fitted, canvas = page.pixels(), page["canvas"]
    page["zoom-in"].click()
    zoomed = page.pixels()
    ActionChains(page.driver).drag_and_drop_by_offset(canvas, 30, 20).perform()
    assert len({fitted, zoomed, page.pixels()}) == 3
    canvas.send_keys("0")
    assert page.pixels() == fitted
    # Layers.
    page["uncertainty"].click()
    assert page["ramp"].is_displayed() and page.pixels() != fitted
    shoot(page, f"{name}-uncertainty")
    page.driver.execute_script(
        'const e = document.getElementById("opacity"); e.value = 0; e.dispatchEvent(new Event("input"));'
    )
    page["uncertainty"].click()
    assert page.pixels() != fitted and page.pixel(0.5, 0.5)[3] == 255


def test_downloads(page: Page, scene: Path) -> None:
    page.choose(scene)
    ids, profile = read(page.saved("as-tiff", "tif"))
    assert ids.shape == (120, 150) and profile["crs"].to_epsg() == 32633 and profile["nodata"] == 255
    assert (read(page.saved("as-png", "png"))[0] == ids).all()
    polygons = json.loads(page.saved("as-geojson", "geojson"))
    assert {f["properties"]["class_id"] for f in polygons["features"]} == set(np.unique(ids).tolist())
    assert {path.name for path in page.downloads.iterdir()} == {f"scene-refined.{s}" for s in ("tif", "png", "geojson")}


def test_the_sample_and_stopping(page: Page) -> None:
    page["sample"].click()
    page.wait(lambda: page["results"].is_displayed())
    assert page["change"].text == "sample.npy"
    page.driver.execute_script(
        'for (const [n, v] of [["steps", 20], ["samples", 8]]) { const e = document.getElementById(n);'
        ' e.value = v; e.dispatchEvent(new Event("input")); }'
    )
    page["refine"].click()
    page.wait(lambda: page["stop"].is_displayed())
    page.wait(lambda: page["right-label"].is_displayed())
    assert page["right-label"].text == "being refined"
    page["stop"].click()
    page.wait(lambda: page["refine"].is_enabled())
    assert not page["problem"].is_displayed() and not page["as-tiff"].is_enabled()
    assert page["right-label"].text == "stopped: not finished"
    shoot(page, "stopped")


@pytest.mark.parametrize("page", list(WIDTHS), indirect=True)
def test_errors_are_shown(page: Page, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    (tmp_path / "notes.tif").write_text("no image at all")
    page.choose(tmp_path / "notes.tif")
    assert page["problem"].is_displayed() and "Unsupported format" in page["problem"].text
    assert "GeoTIFF" in page["problem"].text and page["problem"].get_attribute("role") == "alert"
    shoot(page, f"{request.node.callspec.params['page']}-error")
    assert page.layout()["out"] == []
    (tmp_path / "grey.tif").write_bytes(geotiff(picture(40, 40)[:1]))
    page.choose(tmp_path / "grey.tif")
    assert "no band 2" in page["problem"].text
    (tmp_path / "fine.tif").write_bytes(geotiff(picture(40, 40)))
    page.choose(tmp_path / "fine.tif")
    assert not page["problem"].is_displayed() and page["as-tiff"].is_enabled()
    # The map of another image is neither shown nor saved under this one's name.
    shown = page.pixels()
    page.choose(tmp_path / "notes.tif")
    assert page["problem"].is_displayed() and not page["as-tiff"].is_enabled()
    assert not page["results"].is_displayed() and page.pixels() != shown
    assert page.pixel(0.5, 0.5)[3] == 0


def test_an_invalid_setting_under_a_closed_more_is_shown(page: Page, scene: Path) -> None:
    page.choose(scene)
    assert page["more"].get_attribute("open") is None
    page.driver.execute_script('document.getElementById("guidance").value = 99')
    page["refine"].click()
    page.wait(lambda: page["problem"].is_displayed())
    assert "Guidance" in page["problem"].text and page["guidance"].is_displayed()
    shoot(page, "invalid")
    page["guidance"].clear()
    page["guidance"].send_keys("1")
    page["refine"].click()
    page.wait(lambda: page["as-tiff"].is_enabled())
    assert not page["problem"].is_displayed()


def test_words_of_help_and_limits(page: Page) -> None:
    for name in ("steps", "samples", "guidance", "seed", "own"):
        help_id = page[name].get_attribute("aria-describedby")
        assert len(page[help_id].get_attribute("textContent")) > 20
    assert "px here" in page["limit"].text
