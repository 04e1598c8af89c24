"""Serves a folder over HTTP, so that a browser can play an exported clip from this machine.

Browsers seek in a video only if the server supports range requests, and run a module only if it has the right MIME
type.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from werkzeug.exceptions import BadRequest, Forbidden, HTTPException, MethodNotAllowed, NotFound
from werkzeug.security import safe_join
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.utils import send_file
from werkzeug.wrappers import Request, Response

from maskvolume.runtime.errors import InputError

LOOPBACK = "127.0.0.1"
LARGEST_PORT = 65535

# Not the system's table: on some machines it maps .js to plain text, which browsers don't run.
MIME_TYPES = {
    ".css": "text/css",
    ".gif": "image/gif",
    ".htm": "text/html",
    ".html": "text/html",
    ".ico": "image/vnd.microsoft.icon",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".js": "text/javascript",
    ".json": "application/json",
    ".mjs": "text/javascript",
    ".mp4": "video/mp4",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".webm": "video/webm",
    ".webp": "image/webp",
}
OTHER_TYPE = "application/octet-stream"


class FolderServer:
    """Serves the files of one folder, with concurrent requests; as a context manager, in the background.

    It answers GET and HEAD, range requests and conditional requests (ETag, Last-Modified). Files outside the folder
    are not served, even through symbolic links, and folders are not listed. On the loopback address it only answers
    requests for a loopback host name, so that no other site can read the files through DNS rebinding.

    Attributes:
        url: address of the folder's index.html.
        port: the port in use.
        reachable: whether other machines can reach it.

    Args:
        folder: the folder to serve.
        host: address or host name of this machine to bind to.
        ports: tried in this order until one is free; 0 means any free port.

    Raises:
        InputError: the folder is missing, the host is not an address of this machine, or no port is free.
    """

    def __init__(self, folder: str | Path, host: str = LOOPBACK, ports: Sequence[int] = (0,)) -> None:
        self._root = Path(folder).resolve()
        if not self._root.is_dir():
            raise InputError(f"{folder}: no such folder; check the path")
        application = Request.application(self._answer)
        with _bind(host, ports) as listener:
            address, self.port = listener.getsockname()[:2]
            self._server = make_server(
                address, self.port, application, threaded=True, request_handler=_Handler, fd=listener.fileno()
            )
        ip = ipaddress.ip_address(address)
        self.reachable = not ip.is_loopback
        self._names = {host.lower(), "localhost", LOOPBACK, "::1", str(ip)}
        name = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(address, host)
        self.url = f"http://{f'[{name}]' if ':' in name else name}:{self.port}/"
        self._thread: threading.Thread | None = None

    def serve(self) -> None:
        """Answer requests until the program is interrupted."""
        self._server.serve_forever()

    def __enter__(self) -> FolderServer:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._thread is not None
        self._server.shutdown()
        self._thread.join()

    def _answer(self, request: Request) -> Response:
        try:
            response = self._respond(request)
        except HTTPException as error:
            response = error.get_response(request.environ)
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    def _respond(self, request: Request) -> Response:
        """The answer to a request.

        Raises:
            HTTPException: there is no such file, or the request is not supported.
        """
        if not self.reachable and _name_of(request.host) not in self._names:
            raise BadRequest
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(valid_methods=["GET", "HEAD"])
        path = self._find(request.path.lstrip("/") or "index.html")
        try:
            response = send_file(
                path, request.environ, mimetype=MIME_TYPES.get(path.suffix.lower(), OTHER_TYPE), conditional=True
            )
        except FileNotFoundError:
            raise NotFound from None
        except PermissionError:
            raise Forbidden from None
        del response.headers["Content-Disposition"]
        response.accept_ranges = "bytes"  # Werkzeug 3.0 leaves it out in answers to HEAD
        return response

    def _find(self, name: str) -> Path:
        """The file in the folder for the decoded path of a request, with links resolved."""
        joined = safe_join(str(self._root), name)
        try:
            path = Path(joined or "").resolve(strict=True)
        except (OSError, RuntimeError, ValueError):  # missing; links in a circle; a null byte
            raise NotFound from None
        if joined is None or not path.is_relative_to(self._root) or not path.is_file():
            raise NotFound
        return path


class _Handler(WSGIRequestHandler):
    """Answers requests without logging them."""

    def run_wsgi(self) -> None:
        try:
            super().run_wsgi()
        except ValueError:  # an address that can't be parsed, such as http://[
            self.send_error(400)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass

    def log(self, type: str, message: str, *args: Any) -> None:
        pass


def _name_of(host: str) -> str | None:
    """The host name in a Host header such as ``localhost:8000`` or ``[::1]:8000``, without the port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _bind(host: str, ports: Sequence[int]) -> socket.socket:
    """A socket that listens on the first free port."""
    for port in ports:
        if not 0 <= port <= LARGEST_PORT:
            raise InputError(f"--port {port}: a number from 0 to {LARGEST_PORT} expected")
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            return socket.create_server(address, family=family)
        except (socket.gaierror, UnicodeError):
            raise InputError(
                f"--host {host!r}: no address has this name; use {LOOPBACK} for this machine only"
            ) from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            if error.errno in (errno.EACCES, errno.EPERM):
                raise InputError(f"--port {port}: not permitted; choose one from 1024 on") from error
            reason = os.strerror(error.errno or 0).lower()
            raise InputError(
                f"--host {host}: can't be served on ({reason}); use {LOOPBACK} for this machine only, "
                "0.0.0.0 for its network"
            ) from error
    subject = f"{ports[0]}: is" if len(ports) == 1 else f"{ports[0]} to {ports[-1]}: all are"
    raise InputError(f"--port {subject} taken by another program; choose another, or 0 for any free one")
