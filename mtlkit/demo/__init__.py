"""Demo: a page on this machine that shows every task's answer for a picture."""

import errno
import ipaddress
import socket
import sys
import webbrowser
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from mtlkit.errors import ConfigError


def serve(folder: Path, host: str, port: int, *, open_browser: bool = False) -> None:
    """Serve the page until Ctrl-C.

    Args:
        folder: of a run or a model, or an exported file.
        host: the address to listen at; anything but this machine's own is warned of.
        port: 0 takes any free one.
        open_browser: show the page in the user's browser.

    Raises:
        ConfigError: a package is missing, or the address cannot be had.
        CheckpointError: the folder holds no model.
    """
    if not (find_spec("starlette") and find_spec("uvicorn")):
        raise ConfigError('the page is served by two more packages: pip install "mtlkit[demo]"')
    with _listen(host, port) as listener:  # before the model is loaded, which takes seconds
        if not _is_loopback(host):
            print(f"mtlkit demo: warning: --host {host} lets whoever reaches this machine use the "
                  "model; there is no password", file=sys.stderr)  # fmt: skip
        _serve(folder, host, listener, open_browser)


def _serve(folder: Path, host: str, listener: socket.socket, open_browser: bool) -> None:
    from mtlkit import api
    from mtlkit.demo import page, server
    from mtlkit.model import Model

    model = api.load(folder)
    if isinstance(model, Model):
        model.to(page.device())
    app = page.build(model, str(folder), names=("localhost", socket.gethostname(), host))
    address = _address(listener)
    print(f"{folder} answers {', '.join(model.tasks)} at {address} (Ctrl-C ends it)", flush=True)
    if open_browser:
        webbrowser.open(address)
    server.run(app, listener)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} of {host} is in use; end what listens there, or choose another with "
                "--port (0 takes any free one)"
            ) from None
        raise ConfigError(f"cannot listen at {host}, port {port}: {error.strerror}") from None


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _address(listener: socket.socket) -> str:
    """Where a browser on this machine finds the page."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
