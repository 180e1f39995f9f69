"""The demo's page without a browser: what it answers, refuses and sends along."""

import asyncio
import base64
import json
import signal
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import uvicorn
from mtlkit_tasks._draw import PALETTE
from PIL import Image
from serving import served
from starlette.testclient import TestClient

import mtlkit
from mtlkit import demo
from mtlkit.cli import main
from mtlkit.demo import answer as answers
from mtlkit.demo import page, upload

ADDRESS = "http://127.0.0.1:7860"
Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model(six_tasks: Path) -> mtlkit.Model:
    return mtlkit.load(six_tasks)


@pytest.fixture
def client(model: mtlkit.Model) -> Iterator[TestClient]:
    app = page.build(model, "runs/x", names=("localhost", "box"))
    with TestClient(app, base_url=ADDRESS) as client:
        yield client


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(width: int = 60, height: int = 40) -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height))


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", b""), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def ask(client: TestClient, data: bytes, **headers: str) -> list[dict[str, Any]]:
    """What the page is told of a picture, line by line."""
    response = client.post("/predict", content=data, headers=headers)
    assert response.status_code == 200
    return [json.loads(line) for line in response.text.splitlines()]


def shown(url: str) -> Image.Image:
    head, data = url.split(",")
    assert head == "data:image/png;base64"
    return Image.open(BytesIO(base64.b64decode(data)))


def test_every_task_answers_with_a_picture_and_what_it_decoded(
    client: TestClient, model: mtlkit.Model
) -> None:
    state, answer = ask(client, file_of(picture()))
    assert state == {"state": "working"}
    assert (answer["width"], answer["height"]) == (60, 40)
    assert 0 < answer["network"] < answer["seconds"]
    assert np.array_equal(shown(answer["picture"]), picture())
    cards = {card["task"]: card for card in answer["tasks"]}
    assert list(cards) == list(model.tasks)
    assert all(shown(card["drawn"]).size == (60, 40) for card in cards.values())
    for card in (cards["seg"], cards["cls"]):
        (shares,) = card["shares"]
        assert sum(row["share"] for row in shares["rows"]) == pytest.approx(1)
    assert {row["name"] for row in cards["cls"]["shares"][0]["rows"]} == set(
        model.tasks["cls"].classes
    )


def test_answers_are_those_of_the_model_alone(client: TestClient, model: mtlkit.Model) -> None:
    *_, answer = ask(client, file_of(picture()))
    alone = model.predict(picture())
    cards = {card["task"]: card for card in answer["tasks"]}
    assert cards["bbox"]["facts"] == [{"name": "box", "text": answers.text(alone["bbox"]["box"])}]
    assert cards["cls"]["facts"][0] == {"name": "class", "text": alone["cls"]["class"]}
    for id, term in (("denoise", "image"), ("edge", "edges"), ("colourise", "image")):
        expected = alone[id][term].permute(1, 2, 0).numpy()
        assert np.array_equal(shown(cards[id]["drawn"]), expected)
        assert not cards[id]["pictures"]  # it is the one that is drawn


def test_a_picture_is_turned_upright_and_a_large_one_is_shown_smaller(client: TestClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    *_, answer = ask(client, file_of(picture(2000, 500), "JPEG", exif=exif))
    assert (answer["width"], answer["height"]) == (500, 2000)
    assert {shown(card["drawn"]).size for card in answer["tasks"]} == {(256, 1024)}


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_the_smallest_pictures_are_answered(client: TestClient, size: tuple[int, int]) -> None:
    *_, answer = ask(client, file_of(picture(*size)))
    assert not any("error" in card for card in answer["tasks"])


BROKEN = {
    "empty": (b"", 400, "the file is empty"),
    "text": (b"no picture", 415, "no picture that is read here (BMP, GIF, JPEG, PNG, TIFF, WEBP)"),
    "program": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n", 415, "no picture"),
    "cut": (file_of(picture(), "BMP")[:900], 422, "cannot be read: image file is truncated"),
    "floats": (file_of(picture().convert("F"), "TIFF"), 422, "floating-point pixels; save it with"),
    "large": (png_that_claims(5001, 5000), 413, "more than 25 million pixels; make it smaller"),
    "larger": (png_that_claims(10_000, 10_000), 413, "more than 25 million pixels"),
    "bomb": (png_that_claims(30_000, 30_000), 413, "more than 25 million pixels"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_picture_gets_a_reason(client: TestClient, case: str) -> None:
    data, status, reason = BROKEN[case]
    response = client.post("/predict", content=data)
    assert response.status_code == status
    assert set(response.json()) == {"error"}
    assert reason in response.json()["error"]
    assert "0x" not in response.text  # no object of the program's


def test_too_many_bytes_are_refused_before_they_are_all_read(client: TestClient) -> None:
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        while read <= 2 * upload.MOST_BYTES:
            read += 2**20
            yield bytes(2**20)

    app: Any = client.app
    messages: list[Any] = []
    parts = endless()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": next(parts), "more_body": True}

    async def send(message: Any) -> None:
        messages.append(message)

    headers = [(b"host", b"127.0.0.1:7860")]
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers,
             "query_string": b"", "http_version": "1.1"}  # fmt: skip
    asyncio.run(app(scope, receive, send))
    assert messages[0]["status"] == 413
    assert json.loads(messages[1]["body"]) == {
        "error": "the file is larger than 30 MB; make it smaller"
    }
    assert read == upload.MOST_BYTES + 2**20


def test_a_task_that_fails_hides_no_other_answer(
    client: TestClient, model: mtlkit.Model, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("no pen")

    monkeypatch.setattr(model.tasks["bbox"], "draw", fail)
    *_, answer = ask(client, file_of(picture()))
    cards = {card["task"]: card for card in answer["tasks"]}
    assert cards.pop("bbox") == {"task": "bbox", "error": "ValueError: no pen"}
    assert all("drawn" in card for card in cards.values())
    assert "Traceback" in capsys.readouterr().err  # for who wrote the task


def test_a_network_that_fails_is_one_line_on_the_page(
    client: TestClient, model: mtlkit.Model, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model, "raw", fail)
    *_, answer = ask(client, file_of(picture()))
    assert answer == {"error": "the network failed: RuntimeError: out of memory"}
    assert "Traceback" in capsys.readouterr().err


def test_one_picture_is_answered_at_a_time_and_the_other_is_told_to_wait(
    model: mtlkit.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, at_work, most = threading.Event(), 0, 0

    def slowly(*_: Any) -> dict[str, str]:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        assert go_on.wait(10)
        at_work -= 1
        return {"answer": "here"}

    monkeypatch.setattr(page, "answer", slowly)
    predictions = page._Predictions(model)
    told: list[tuple[str, Any]] = []

    async def follow(name: str) -> None:
        async for line in predictions._states(torch.zeros(3, 4, 4, dtype=torch.uint8)):
            told.append((name, *json.loads(line).values()))
            if told[-1][1] == "waiting":
                go_on.set()

    async def both() -> None:
        await asyncio.gather(follow("first"), follow("second"))

    asyncio.run(both())
    assert told == [
        ("first", "working"), ("second", "waiting"), ("first", "here"), ("second", "working"),
        ("second", "here"),
    ]  # fmt: skip
    assert most == 1


class Stranger:
    """What a third party's task may decode."""

    id, classes = "stranger", ("sky", "<b>sea</b>")

    def decode(self, prediction: torch.Tensor, image: torch.Tensor) -> dict[str, Any]:
        mask = torch.zeros(image.shape[1:], dtype=torch.uint8)
        mask[0] = 1
        mask[1] = 9
        return {
            "mask": mask,
            "depth": image.flip(0),
            "odds": {f"c{i}": i / 10 for i in range(8)},
            "counts": {"dogs": 2, "cats": 1.5},
            "numbers": list(range(20)),
            "sure": True,
            "far": 1234.5678,
            "near": 0.0012345,
            "name": "<b>bold</b>",
        }

    def draw(self, image: torch.Tensor, decoded: dict[str, Any]) -> torch.Tensor:
        drawn = image.clone()
        drawn[0, decoded["mask"] == 1] = 200
        drawn[1:, decoded["mask"] == 1] = 0
        return drawn


def test_whatever_a_task_decodes_is_shown_by_its_shape() -> None:
    image = torch.full((3, 10, 10), 7, dtype=torch.uint8)
    image[0] = 90
    task: Any = Stranger()
    card = answers._card(task, torch.zeros(1), image)
    mask, odds = card["shares"]
    assert mask["rows"] == [
        {"name": "sky", "share": 0.8, "colour": None},
        {"name": "<b>sea</b>", "share": 0.1, "colour": "#c80000"},
        {"name": "class 9", "share": 0.1, "colour": None},
    ]
    assert [row["name"] for row in odds["rows"]] == ["c7", "c6", "c5", "c4", "c3", "c2"]
    assert (odds["name"], odds["more"]) == ("odds", 2)
    ((name, url),) = [(p["name"], p["picture"]) for p in card["pictures"]]
    assert (name, shown(url).getpixel((0, 0))) == ("depth", (7, 7, 90))
    assert {fact["name"]: fact["text"] for fact in card["facts"]} == {
        "counts": "dogs 2, cats 1.5",
        "numbers": "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, ... (20 in all)",
        "sure": "yes",
        "far": "1234.57",
        "near": "0.00123",
        "name": "<b>bold</b>",
    }


def test_a_legend_has_the_colours_that_are_drawn(model: mtlkit.Model) -> None:
    task = model.tasks["seg"]
    mask = torch.arange(5, dtype=torch.uint8).repeat_interleave(20)[:, None].repeat(1, 100)
    found = {part["name"]: part["colour"] for part in answers._parts(task, {"mask": mask}, mask)}
    assert found.pop("background") is None
    for i, name in enumerate(task.classes[1:], 1):
        levels = bytes.fromhex(found.pop(name).removeprefix("#"))
        assert tuple(levels) == pytest.approx(PALETTE[i], abs=2)  # for what rounding loses
    assert not found


def test_a_task_whose_drawing_does_not_fit_the_legend_has_one_without_colours() -> None:
    class Picky(Stranger):
        def draw(self, image: torch.Tensor, decoded: dict[str, Any]) -> torch.Tensor:
            assert image.shape[1:] == (10, 10)
            return super().draw(image, decoded)

    task: Any = Picky()
    card = answers._card(task, torch.zeros(1), torch.zeros(3, 10, 10, dtype=torch.uint8))
    assert [row["colour"] for row in card["shares"][0]["rows"]] == [None, None, None]


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")],
)
def test_the_page_is_sent_with_strict_headers_and_names_no_other_site(
    client: TestClient, path: str, kind: str
) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == f"{kind}; charset=utf-8"
    assert "://" not in response.text
    policy = dict(part.split(maxsplit=1) for part in _policy(response.headers))
    assert policy.pop("img-src") == "data:"
    assert {policy.pop(key) for key in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert set(policy.values()) == {"'none'"}
    assert set(policy) == {"default-src", "base-uri", "form-action", "frame-ancestors"}


def _policy(headers: Any) -> list[str]:
    return [part.strip() for part in headers["content-security-policy"].split(";")]


def test_refusals_and_answers_have_these_headers_too_and_none_lets_other_origins_read(
    client: TestClient,
) -> None:
    responses = [
        client.post("/predict", content=file_of(picture())),
        client.post("/predict", content=b""),
        client.get("/nothing"),
        client.get("/", headers={"host": "evil.example"}),
    ]
    assert [r.status_code for r in responses] == [200, 400, 404, 403]
    for headers in (response.headers for response in responses):
        assert _policy(headers)[0] == "default-src 'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert not [name for name in headers if name.startswith("access-control")]


def test_the_name_of_a_run_is_escaped(model: mtlkit.Model) -> None:
    app = page.build(model, "<script>alert(1)</script> $x &", names=("localhost",))
    text = TestClient(app, base_url=ADDRESS).get("/").text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt; $x &amp;") == 2
    assert text.count("<script") == 1


def test_the_page_reads_no_text_as_html(client: TestClient) -> None:
    script = client.get("/page.js").text
    assert "textContent" in script
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in script


HOSTS = {
    "127.0.0.1:7860": True, "localhost:7860": True, "LOCALHOST": True, "box:80": True,
    "[::1]:7860": True, "192.168.1.7:7860": True, "evil.example": False,
    "evil.example:7860": False, "127.0.0.1.evil.example": False, "localhost.evil.example": False,
    "": False, "[::1": False, "localhost@evil.example": False,
}  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_only_this_machine_s_names_and_addresses_are_answered(
    client: TestClient, host: str
) -> None:
    for response in (
        client.get("/", headers={"host": host}),
        client.post("/predict", content=file_of(picture()), headers={"host": host}),
    ):
        assert response.status_code == (200 if HOSTS[host] else 403)
        if not HOSTS[host]:
            assert response.json() == {"error": "this page is not known under that name"}


ORIGINS = {
    ADDRESS: True, "http://127.0.0.1:7861": False, "http://localhost:7860": False,
    "http://evil.example": False, "null": False, "http://127.0.0.1": False,
}  # fmt: skip


@pytest.mark.parametrize("origin", ORIGINS)
def test_another_site_s_page_is_refused(client: TestClient, origin: str) -> None:
    data = file_of(picture())
    response = client.post("/predict", content=data, headers={"origin": origin})
    assert response.status_code == (200 if ORIGINS[origin] else 403)
    if not ORIGINS[origin]:
        assert response.json() == {"error": "another site's page may not ask"}


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def close(self: uvicorn.Server, sockets: list[socket.socket]) -> None:
        sockets[0].close()

    monkeypatch.setattr(uvicorn.Server, "run", close)


@pytest.mark.usefixtures("no_server")
def test_it_says_where_it_is_and_what_it_answers(
    six_tasks: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(demo.webbrowser, "open", opened.append)
    for words in ([], ["--host", "localhost"], ["--open"]):
        assert main(["demo", str(six_tasks), "--port", "0", *words]) == 0
    captured = capsys.readouterr()
    start = f"{six_tasks} answers seg, cls, bbox, denoise, edge, colourise at http://127.0.0.1:"
    assert captured.out.count(start) == 3
    assert captured.err == ""
    assert len(opened) == 1
    assert f"at {opened[0]} (Ctrl-C ends it)\n" in captured.out


@pytest.mark.usefixtures("no_server")
def test_an_address_that_others_reach_is_warned_of(six_tasks: Path, capsys: Output) -> None:
    assert main(["demo", str(six_tasks), "--port", "0", "--host", "0.0.0.0"]) == 0
    captured = capsys.readouterr()
    assert captured.err == (
        "mtlkit demo: warning: --host 0.0.0.0 lets whoever reaches this machine use the model; "
        "there is no password\n"
    )
    assert " at http://127.0.0.1:" in captured.out


def _taken_port() -> tuple[list[str], str]:
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    KEPT.append(taken)
    return ["--port", str(port)], f"port {port} of 127.0.0.1 is in use; end what listens there, or"


KEPT: list[socket.socket] = []
MISTAKES: dict[str, Callable[[], tuple[list[str], str]]] = {
    "port in use": _taken_port,
    "no number": lambda: (["--port", "x"], "expects a number from 0 to 65535, but got 'x'"),
    "no port": lambda: (["--port", "70000"], "expects a number from 0 to 65535, but got '70000'"),
    "no address": lambda: (["--host", "192.0.2.1"], "cannot listen at 192.0.2.1, port 7860: "),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_an_address_that_cannot_be_had_is_one_line(
    six_tasks: Path, capsys: Output, mistake: str
) -> None:
    words, message = MISTAKES[mistake]()
    assert main(["demo", str(six_tasks), *words]) == 2
    while KEPT:
        KEPT.pop().close()
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_folder_without_a_model_is_one_line(tmp_path: Path, capsys: Output) -> None:
    assert main(["demo", str(tmp_path), "--port", "0"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"mtlkit demo: error: no model in {tmp_path}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_a_missing_package_is_one_line(
    capsys: Output, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    find = demo.find_spec
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == package else find(name))
    assert main(["demo", "anything"]) == 2
    assert capsys.readouterr().err == (
        'mtlkit demo: error: the page is served by two more packages: pip install "mtlkit[demo]"\n'
    )


def connect(address: str, request: str, body: bytes, length: int) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    head = f"{request} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def test_ctrl_c_ends_it_with_exit_code_0_whoever_left_or_is_still_there(six_tasks: Path) -> None:
    data = file_of(picture(1500, 1000), "JPEG")
    started = b"HTTP/1.1 200 OK\r\n"
    with served(six_tasks) as (address, process):
        with connect(address, "POST /predict", data[:10], len(data)):
            pass  # leaves while sending
        with connect(address, "POST /predict", data, len(data)) as leaving:
            assert leaving.recv(100).startswith(started)  # and leaves before the answer
        with connect(address, "GET /", b"", 0) as staying:
            assert staying.recv(100).startswith(started)
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
