"""Server: uvicorn, which Ctrl-C ends without a word."""

import logging
import socket
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp

_PATIENCE = 3  # seconds, for answers that are on their way


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # that something is cut off is what was asked for, and no error
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)


def run(app: ASGIApp, listener: socket.socket) -> None:
    """Serve until Ctrl-C; a picture in work is worked on to its end."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=_PATIENCE,
    )
    with suppress(KeyboardInterrupt):  # which uvicorn raises again, having ended well
        _Server(config).run(sockets=[listener])
