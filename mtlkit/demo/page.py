"""Page: what the browser is sent, and to whom it is not sent."""

import asyncio
import ipaddress
import json
import sys
import traceback
from collections.abc import AsyncIterator, Collection, Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit

import torch
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from torch import Tensor

from mtlkit.demo.answer import answer
from mtlkit.demo.upload import MOST_BYTES, TOO_LARGE, Refused, read_picture
from mtlkit.predictor import Predictor

_HERE = Path(__file__).parent
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def device() -> torch.device:
    """Where the network answers: on the GPU, if there is one."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def build(model: Predictor, title: str, *, names: Collection[str]) -> Starlette:
    """The page as an ASGI application.

    Args:
        model: answers, one picture at a time.
        title: of the page.
        names: by which a browser may call this machine, besides by its addresses.
    """
    tasks = ", ".join(model.tasks)
    words = {"title": title, "tasks": tasks, "most_bytes": str(MOST_BYTES), "too_large": TOO_LARGE}
    template = Template((_HERE / "page.html").read_text(encoding="utf-8"))
    page = template.substitute({key: escape(word) for key, word in words.items()})
    return Starlette(
        routes=[
            _file("/", page, "text/html"),
            _file("/page.css", (_HERE / "page.css").read_text(encoding="utf-8"), "text/css"),
            _file("/page.js", (_HERE / "page.js").read_text(encoding="utf-8"), "text/javascript"),
            Route("/predict", _Predictions(model).respond, methods=["POST"]),
        ],
        middleware=[Middleware(_Guard, names=names)],
    )


def _file(path: str, content: str, media_type: str) -> Route:
    return Route(path, lambda request: Response(content, media_type=media_type))


class _Predictions:
    """The body of a request is a picture's file; the response is a line of JSON for each state.

    ``{"state": "waiting"}`` if another picture is being worked on, ``{"state": "working"}``, then
    the answer, or ``{"error": ...}``.
    """

    def __init__(self, model: Predictor) -> None:
        self.model = model
        self.reading, self.working = asyncio.Lock(), asyncio.Lock()

    async def respond(self, request: Request) -> Response:
        try:
            data = await _body(request)
            async with self.reading:
                picture = await run_in_threadpool(read_picture, data)
        except Refused as refusal:
            return _refuse(refusal.status, str(refusal))
        except ClientDisconnect:  # who gave another picture meanwhile reads no response
            return Response(status_code=400)
        return StreamingResponse(self._states(picture), media_type="application/x-ndjson")

    async def _states(self, picture: Tensor) -> AsyncIterator[str]:
        if self.working.locked():
            yield _line({"state": "waiting"})
        async with self.working:
            yield _line({"state": "working"})
            try:
                yield _line(await run_in_threadpool(answer, self.model, picture))
            except Exception as error:  # to the page in a line, to the terminal in full
                traceback.print_exception(error, file=sys.stderr)
                yield _line({"error": f"the network failed: {type(error).__name__}: {error}"})


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values) + "\n"


async def _body(request: Request) -> bytes:
    """The whole body, unless it is too large, whatever its header claims."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MOST_BYTES:
            raise Refused(413, TOO_LARGE)
    return bytes(data)


def _refuse(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status)


class _Guard:
    """Answers no other site's page, neither under a borrowed name nor across origins."""

    def __init__(self, app: ASGIApp, *, names: Collection[str]) -> None:
        self.app = app
        self.names = {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        app = self.app
        if not self._knows(headers.get("host", "")):
            app = _refuse(403, "this page is not known under that name")
        elif not _same_origin(headers):
            app = _refuse(403, "another site's page may not ask")
        await app(scope, receive, send_guarded)

    def _knows(self, host: str) -> bool:
        """Whether a host is one of the names or any address: borrowing takes a name."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name not in self.names:
                ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _same_origin(headers: Headers) -> bool:
    """Browsers say of each POST which origin it comes from; programs do not."""
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
