"""The demo as a visitor meets it: a real browser, a real server, real pictures."""

import shutil
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver import Chrome
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait
from serving import served
from test_demo import picture

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="chromium and chromedriver are not installed"
)
TASKS = ["seg", "cls", "bbox", "denoise", "edge", "colourise"]
PATIENCE = 60  # seconds, on a busy machine


@pytest.fixture(scope="module")
def address(six_tasks: Path) -> Iterator[str]:
    with served(six_tasks) as (address, _):
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
        "disable-background-networking", "disable-component-update", "disable-sync",
        f"user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SE_OFFLINE", "true")  # looks for no driver elsewhere
        browser = Chrome(options, Service(str(DRIVER)))
    yield browser
    browser.quit()


@pytest.fixture
def page(browser: Chrome, address: str) -> Iterator[Chrome]:
    """The page, freshly loaded; whatever is done there breaks none of its own rules."""
    browser.get(address)
    yield browser
    complaints = [entry["message"] for entry in browser.get_log("browser")]
    assert [text for text in complaints if "Failed to load resource" not in text] == []
    loaded = browser.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert [name for name in loaded if not name.startswith((address, "data:"))] == []


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A picture, another of other sides, and a file that is none."""
    names = {"first": "<b>first.png", "second": "second.jpg", "broken": "broken.png"}
    found = {key: tmp_path / name for key, name in names.items()}
    picture(90, 60).save(found["first"])
    picture(40, 70).save(found["second"])
    found["broken"].write_bytes(b"no picture")
    return {key: str(file) for key, file in found.items()}


def find(page: Chrome, selector: str) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, selector)


def texts(page: Chrome, selector: str) -> list[str]:
    return [element.text for element in page.find_elements(By.CSS_SELECTOR, selector)]


def wait_for(page: Chrome, selector: str, text: str) -> None:
    WebDriverWait(page, PATIENCE).until(lambda _: text in find(page, selector).text)


def assert_answered(page: Chrome, file: str, size: tuple[int, int]) -> None:
    """A card for the picture and for each task, with pictures that were really loaded."""
    wait_for(page, "#status", "6 answers in ")
    assert texts(page, "article h2") == ["Your picture", *TASKS]
    assert texts(page, "article:first-child dd") == [
        file,
        f"{size[0]} \N{MULTIPLICATION SIGN} {size[1]} pixels",
    ]
    sizes = page.execute_script(
        "return [...document.images].map((image) => [image.naturalWidth, image.naturalHeight])"
    )
    assert sizes == [list(size)] * (1 + len(TASKS))
    assert all(image.get_attribute("alt") for image in page.find_elements(By.TAG_NAME, "img"))
    assert find(page, "#error").text == ""
    assert "busy" not in (find(page, "body").get_attribute("class") or "")


def assert_refused(page: Chrome, file: str, reason: str) -> None:
    wait_for(page, "#error", f"{file}: ")
    assert reason in find(page, "#error").text
    assert texts(page, "article") == []
    assert find(page, "#status").text == ""


def test_a_picture_then_a_broken_file_then_a_picture_again(
    page: Chrome, files: dict[str, str]
) -> None:
    chooser = find(page, "#file")
    chooser.send_keys(files["first"])
    assert_answered(page, "<b>first.png", (90, 60))
    assert "circle" in find(page, "article:nth-child(3)").text
    chooser.send_keys(files["broken"])
    assert_refused(page, "broken.png", "this is no picture that is read here")
    chooser.send_keys(files["second"])
    assert_answered(page, "second.jpg", (40, 70))
    chooser.send_keys(files["second"])  # the same file once more
    wait_for(page, "#status", "6 answers in ")


GIVE = """
const [kind, name, base64] = arguments;
const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
const transfer = new DataTransfer();
if (name) transfer.items.add(new File([bytes], name));
const options = { bubbles: true, cancelable: true };
const event = kind === "drop"
  ? new DragEvent(kind, { ...options, dataTransfer: transfer })
  : new ClipboardEvent(kind, { ...options, clipboardData: transfer });
document.querySelector("header").dispatchEvent(event);
return event.defaultPrevented;
"""


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_picture_may_be_dropped_anywhere_or_pasted(
    page: Chrome, files: dict[str, str], way: str
) -> None:
    data = b64encode(Path(files["second"]).read_bytes()).decode()
    handled = page.execute_script(GIVE, way, "given.jpg", data)
    assert handled == (way == "drop")  # or the browser would show the file in the page's place
    assert_answered(page, "given.jpg", (40, 70))
    page.execute_script(GIVE, way, "", "")
    assert "That was no picture file" in find(page, "#error").text


def test_a_file_that_is_too_large_is_not_sent(page: Chrome) -> None:
    page.execute_script("document.querySelector('main').dataset.mostBytes = 2")
    page.execute_script(GIVE, "drop", "huge.png", b64encode(b"abc").decode())
    assert_refused(page, "huge.png", "the file is larger than 30 MB")


def test_the_keyboard_alone_is_enough(page: Chrome, files: dict[str, str]) -> None:
    find(page, "body").send_keys(Keys.TAB)
    focused = page.switch_to.active_element
    assert focused.get_attribute("id") == "file"
    outline = find(page, ".drop").value_of_css_property("outline-style")
    assert outline == "solid"
    focused.send_keys(files["second"])  # what the system's own window to choose gives
    assert_answered(page, "second.jpg", (40, 70))
    assert page.switch_to.active_element == focused


def test_what_happens_is_announced(page: Chrome) -> None:
    assert find(page, "#status").get_attribute("role") == "status"
    assert find(page, "#error").get_attribute("role") == "alert"
    assert find(page, "#file").accessible_name.startswith("Choose a picture")


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_and_text_stands_out(
    page: Chrome, files: dict[str, str], tmp_path: Path, width: int, scheme: str
) -> None:
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    long = tmp_path / f"{'a' * 120}.png"
    Image.open(files["first"]).save(long)
    find(page, "#file").send_keys(str(long))
    assert_answered(page, long.name, (90, 60))
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    card = brightness(find(page, "article").value_of_css_property("background-color"))
    text = brightness(find(page, "h2").value_of_css_property("color"))
    assert (card > text) == (scheme == "light")
    assert abs(card - text) > 150
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def brightness(colour: str) -> float:
    """Of ``rgb(1, 2, 3)`` or ``rgba(1, 2, 3, 1)``: 0 to 255."""
    levels = colour.partition("(")[2].rstrip(")").split(",")[:3]
    return sum(map(float, levels)) / 3


def test_the_page_says_when_the_demo_does_not_answer(page: Chrome, files: dict[str, str]) -> None:
    page.set_network_conditions(offline=True, latency=0, throughput=0)
    find(page, "#file").send_keys(files["second"])
    assert_refused(page, "second.jpg", "the demo does not answer. Does mtlkit demo still run?")
    page.delete_network_conditions()
    find(page, "#file").send_keys(files["second"])
    assert_answered(page, "second.jpg", (40, 70))
