"""The page in a real browser: every control changes the picture, and the printed command makes the same pixels."""

import base64
import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from tests.conftest import lvae, make_once
from tests.evaluate.explore import examples

pytestmark = pytest.mark.browser
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SLIDER_MILLISECONDS = 150.0  # what a hand feels as following
PATIENCE = 60


def answered(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:"), address
    return address


def start(root: Path, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "lvae", "explore", *words, "--no-browser"]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    def make(folder: Path) -> None:
        examples.run(folder / "run", examples.dataset(folder / "data", scenes, 64), 64)
        stripes = np.tile(np.arange(96, dtype=np.uint8)[:, None, None] * 2, (1, 96, 3))
        Image.fromarray(stripes).save(folder / "my own.png")
        (folder / "wrong.png").write_bytes(b"this is no picture")

    return make_once(tmp_path_factory, "browsed", make)


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[str]:
    process = start(root, "run", "--dataset", "data")
    yield answered(process)
    stop(process)


def stop(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait(20)
    assert process.stdout is not None
    process.stdout.close()


@pytest.fixture
def tab(server: str) -> Iterator["Tab"]:
    with opened_browser() as driver:
        yield Tab(driver, server)


def opened_browser() -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1200,1000"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))


class Tab:
    """The page as a person uses it."""

    def __init__(self, driver: webdriver.Chrome, address: str):
        self.driver = driver
        driver.get(address)
        self.until(lambda: self.pictures >= 1)

    def until(self, is_so: object) -> None:
        assert callable(is_so)
        WebDriverWait(self.driver, PATIENCE, 0.02).until(lambda _: is_so())

    def find(self, name: str) -> WebElement:
        return self.driver.find_element(By.ID, name)

    def data(self, name: str) -> int:
        return int(self.driver.execute_script(f"return document.body.dataset.{name} || 0"))

    @property
    def pictures(self) -> int:
        return self.data("pictures")

    @property
    def pixels(self) -> np.ndarray:
        source = str(self.find("picture").get_attribute("src"))
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))

    @property
    def command(self) -> str:
        return str(self.find("command").get_attribute("value"))

    @property
    def message(self) -> str:
        return self.find("message").text

    def change(self, act: object) -> np.ndarray:
        """What a control does to the picture."""
        assert callable(act)
        before = self.pictures
        act()
        self.until(lambda: self.pictures > before)
        self.until(lambda: self.driver.execute_script("return !waiting"))
        return self.pixels

    def slide(self, slider: WebElement, value: float) -> np.ndarray:
        script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))"
        return self.change(lambda: self.driver.execute_script(script, slider, value))

    def sliders(self) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, "#sliders input")

    def type(self, name: str, text: str) -> np.ndarray:
        field = self.find(name)
        return self.change(lambda: field.send_keys(Keys.CONTROL, "a", Keys.NULL, text))

    def choose(self, name: str, value: str) -> np.ndarray:
        return self.change(lambda: Select(self.find(name)).select_by_value(value))


def made_by(command: str, root: Path) -> np.ndarray:
    """The picture that the printed command writes."""
    lvae(*shlex.split(command)[1:], cwd=root)
    return np.asarray(Image.open(root / "picture.png"))


def test_every_control_changes_the_picture_and_the_command_makes_it(tab: Tab, root: Path, server: str) -> None:
    tab.driver.execute_script("Math.random = () => 0.8")  # by chance two controls would ask for one picture
    seen = [tab.pixels]

    def is_new(picture: np.ndarray) -> None:
        assert not any(picture.shape == one.shape and (picture == one).all() for one in seen)
        np.testing.assert_array_equal(made_by(tab.command, root), picture)
        seen.append(picture)

    is_new(tab.choose("from", "index"))
    is_new(tab.type("from-number", "3"))
    for slider in (tab.sliders()[0], tab.sliders()[-1]):
        is_new(tab.slide(slider, 2.5))
    for box in tab.driver.find_elements(By.CSS_SELECTOR, "#redraw input"):
        is_new(tab.change(box.click))
    is_new(tab.change(tab.find("next-seed").click))
    is_new(tab.choose("label", "2"))
    is_new(tab.type("guidance-mean", "4"))
    is_new(tab.type("guidance-variance", "3"))
    is_new(tab.slide(tab.find("left"), 4))
    is_new(tab.slide(tab.find("right"), 8))
    assert tab.pixels.shape == (64, 112, 3)
    tab.change(tab.find("reset").click)
    is_new(tab.change(tab.find("from-another").click))
    is_new(tab.choose("from", "sample"))
    number, label = (tab.find(name).get_attribute("value") for name in ("from-number", "label"))
    assert tab.command.endswith(f" --from sample:{number} --label {label}")
    tab.choose("to", "sample")
    is_new(tab.slide(tab.find("share"), 0.5))
    is_new(tab.type("to-number", "7"))
    is_new(tab.choose("to", "index"))
    is_new(tab.change(tab.find("to-another").click))
    is_new(tab.change(lambda: tab.find("to-file").send_keys(str(root / "my own.png"))))
    saved = str(tab.find("save").get_attribute("href"))
    assert saved == str(tab.find("picture").get_attribute("src"))
    assert [entry for entry in tab.driver.get_log("browser") if entry["level"] == "SEVERE"] == []
    asked = tab.driver.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert {one for one in asked if not one.startswith((server, "data:"))} == set()


def test_a_double_click_puts_a_slider_back(tab: Tab) -> None:
    before, slider = tab.pixels, tab.sliders()[0]
    assert not (tab.slide(slider, 3) == before).all()
    np.testing.assert_array_equal(tab.change(lambda: ActionChains(tab.driver).double_click(slider).perform()), before)


def test_the_command_can_be_copied(tab: Tab) -> None:
    tab.driver.set_permissions("clipboard-read", "granted")
    tab.driver.set_permissions("clipboard-write", "granted")
    tab.find("copy").click()
    tab.until(lambda: tab.find("copy").text == "Copied")
    assert tab.driver.execute_script("return navigator.clipboard.readText()") == tab.command


DROP = """
const [target, data, done] = arguments;
const transfer = new DataTransfer();
const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
transfer.items.add(new File([bytes], "my own.png", { type: "image/png" }));
target.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
"""


def test_an_image_can_be_dropped_on_the_picture(tab: Tab, root: Path) -> None:
    data = base64.b64encode((root / "my own.png").read_bytes()).decode()
    mine = tab.change(lambda: tab.driver.execute_script(DROP, tab.find("drop"), data))
    assert "--from 'my own.png'" in tab.command
    np.testing.assert_array_equal(made_by(tab.command, root), mine)


def test_an_image_is_taken_and_a_wrong_file_told(tab: Tab, root: Path) -> None:
    mine = tab.change(lambda: tab.find("file").send_keys(str(root / "my own.png")))
    np.testing.assert_array_equal(made_by(tab.command, root), mine)
    tab.find("file").send_keys(str(root / "wrong.png"))
    tab.until(lambda: tab.message != "")
    np.testing.assert_array_equal(tab.pixels, mine)
    tab.slide(tab.sliders()[0], 1)
    assert tab.message == ""


def test_the_picture_follows_the_hand(tab: Tab) -> None:
    move_every_slider(tab)


def test_the_model_of_the_package_follows_the_hand(root: Path) -> None:
    process = start(root)
    try:
        with opened_browser() as driver:
            move_every_slider(Tab(driver, answered(process)))
    finally:
        stop(process)


def move_every_slider(tab: Tab) -> None:
    times = []
    for slider in tab.sliders():
        for value in (1.0, -1.0):
            tab.slide(slider, value)
            times.append(tab.data("milliseconds"))
    print(f"{len(times)} moves: median {np.median(times):.0f} ms, largest {max(times)} ms")
    assert np.median(times) <= SLIDER_MILLISECONDS


def test_two_tabs_and_a_closed_one(tab: Tab, server: str) -> None:
    first = tab.slide(tab.sliders()[0], 2)
    tab.driver.switch_to.new_window("tab")
    other = Tab(tab.driver, server)
    other.slide(other.sliders()[-1], -2)
    tab.driver.close()
    tab.driver.switch_to.window(tab.driver.window_handles[0])
    np.testing.assert_array_equal(tab.pixels, first)
    tab.slide(tab.sliders()[0], 0)
    np.testing.assert_array_equal(tab.slide(tab.sliders()[0], 2), first)


def test_the_keyboard_alone_will_do(tab: Tab) -> None:
    tab.driver.execute_script("document.body.focus()")
    reached = set()
    for _ in range(60):
        ActionChains(tab.driver).send_keys(Keys.TAB).perform()
        reached.add(tab.driver.execute_script("return document.activeElement.id || document.activeElement.type"))
    assert {"from", "save", "seed", "share", "left", "range", "file", "reset"} <= reached
    slider = tab.sliders()[0]
    before = tab.pixels
    tab.driver.execute_script("arguments[0].focus()", slider)
    assert not (tab.change(lambda: slider.send_keys(Keys.ARROW_RIGHT * 5)) == before).all()


def test_it_fits_a_phone(tab: Tab) -> None:
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    tab.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    widest = tab.driver.execute_script(
        "return Math.max(...Array.from(document.querySelectorAll('*'), (one) => one.getBoundingClientRect().right))"
    )
    assert widest <= 360
    if folder := os.environ.get("LVAE_SCREENSHOTS"):
        tab.driver.save_screenshot(f"{folder}/phone.png")


def test_a_server_that_was_killed_is_told(root: Path) -> None:
    process = start(root, "run", "--dataset", "data")
    try:
        with opened_browser() as driver:
            tab = Tab(driver, answered(process))
            process.send_signal(signal.SIGKILL)
            process.wait(20)
            driver.execute_script("arguments[0].click()", tab.find("next-seed"))
            tab.until(lambda: "does not answer" in tab.message)
    finally:
        stop(process)
