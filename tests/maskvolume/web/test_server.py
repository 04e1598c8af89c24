"""The server behind an exported clip: what it answers, and what it keeps to itself."""

from __future__ import annotations

import http.client
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.request import urlopen

import pytest

from maskvolume.runtime.errors import InputError
from maskvolume.web.server import FolderServer

SECRET = b"not for others"


VIDEO = bytes(range(256)) * 40


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A folder as large as a test needs, beside a file that no one may have."""
    (tmp_path / "secret.txt").write_bytes(SECRET)
    (tmp_path / "out-of-sight").mkdir()
    (tmp_path / "out-of-sight" / "secret.txt").write_bytes(SECRET)
    folder = tmp_path / "out"
    (folder / "player").mkdir(parents=True)
    (folder / "cameras").mkdir()
    (folder / "index.html").write_text("<!doctype html><title>clip</title>", encoding="utf-8")
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    (folder / "player" / "main.js").write_text("export {};\n", encoding="utf-8")
    for name in ("player/player.css", "static.webp", "poster.jpg", "cameras/cam 00 \u00e9.mp4", "README", "a.js.bin"):
        (folder / name).write_bytes(b"x")
    (folder / "dynamic.mp4").write_bytes(VIDEO)
    return folder


@pytest.fixture
def server(export: Path) -> Iterator[FolderServer]:
    with FolderServer(export) as running:
        yield running


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = response.status, response.headers, response.read()


def ask(server: FolderServer, path: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, headers=dict(headers or {}))
        return Answer(connection.getresponse())
    finally:
        connection.close()


def ask_raw(server: FolderServer, data: bytes) -> bytes:
    """All that comes back for bytes that no HTTP client would send."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    ("path", "mime_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/index.html", "text/html; charset=utf-8"),
        ("/?frame=3", "text/html; charset=utf-8"),
        ("/player/main.js", "text/javascript; charset=utf-8"),
        ("/player/player.css", "text/css; charset=utf-8"),
        ("/manifest.json", "application/json"),
        ("/static.webp", "image/webp"),
        ("/poster.jpg", "image/jpeg"),
        ("/dynamic.mp4", "video/mp4"),
        ("/cameras/cam%2000%20%C3%A9.mp4", "video/mp4"),
        ("/README", "application/octet-stream"),
        ("/a.js.bin", "application/octet-stream"),
    ],
)
def test_files_have_their_types(server: FolderServer, path: str, mime_type: str) -> None:
    answer = ask(server, path)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == mime_type
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    assert "Content-Encoding" not in answer.headers


def test_types_do_not_come_from_the_system(server: FolderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = lambda *_, **__: ("text/plain", "gzip")  # noqa: E731
    monkeypatch.setattr("mimetypes.guess_type", wrong)
    for path, mime_type in [("/player/main.js", "text/javascript; charset=utf-8"), ("/dynamic.mp4", "video/mp4")]:
        answer = ask(server, path)
        assert answer.headers["Content-Type"] == mime_type
        assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=0-", 0, len(VIDEO)),
        ("bytes=100-299", 100, 300),
        ("bytes=-7", len(VIDEO) - 7, len(VIDEO)),
        (f"bytes=10000-{10**9}", 10000, len(VIDEO)),
    ],
)
def test_parts_of_a_file(server: FolderServer, wanted: str, start: int, stop: int) -> None:
    answer = ask(server, "/dynamic.mp4", headers={"Range": wanted})
    assert answer.status == 206
    assert answer.body == VIDEO[start:stop]
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(VIDEO)}"
    assert int(answer.headers["Content-Length"]) == stop - start
    assert answer.headers["Accept-Ranges"] == "bytes"


def test_part_that_is_not_there(server: FolderServer) -> None:
    answer = ask(server, "/dynamic.mp4", headers={"Range": f"bytes={len(VIDEO)}-"})
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(VIDEO)}"


def test_part_of_a_file_that_changed_is_the_whole_new_one(server: FolderServer, export: Path) -> None:
    tag = ask(server, "/dynamic.mp4").headers["ETag"]
    (export / "dynamic.mp4").write_bytes(VIDEO[::-1] + b"!")
    answer = ask(server, "/dynamic.mp4", headers={"Range": "bytes=5-9", "If-Range": tag})
    assert answer.status == 200
    assert answer.body == VIDEO[::-1] + b"!"


def test_only_what_changed_comes_again(server: FolderServer, export: Path) -> None:
    first = ask(server, "/manifest.json")
    same = {"If-None-Match": first.headers["ETag"]}
    for headers in (same, {"If-Modified-Since": first.headers["Last-Modified"]}):
        again = ask(server, "/manifest.json", headers=headers)
        assert again.status == 304
        assert again.body == b""
    (export / "manifest.json").write_text('{"new": 1}', encoding="utf-8")
    changed = ask(server, "/manifest.json", headers=same)
    assert changed.status == 200
    assert changed.body == b'{"new": 1}'


def test_head_has_no_body(server: FolderServer) -> None:
    answer = ask(server, "/dynamic.mp4", "HEAD")
    assert answer.status == 200
    assert answer.body == b""
    assert int(answer.headers["Content-Length"]) == len(VIDEO)
    assert answer.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "FOO"])
def test_other_methods_are_refused(server: FolderServer, method: str) -> None:
    answer = ask(server, "/manifest.json", method)
    assert answer.status == 405
    assert {name.strip() for name in answer.headers["Allow"].split(",")} == {"GET", "HEAD"}


@pytest.mark.parametrize(
    "path", ["/player", "/player/", "/cameras/", "/missing.mp4", "/player/player/main.js", "/x" * 400]
)
def test_folders_and_what_is_missing(server: FolderServer, path: str) -> None:
    answer = ask(server, path)
    assert answer.status == 404
    assert b"main.js" not in answer.body


ESCAPES = [
    "/../secret.txt",
    "/%2e%2e/secret.txt",
    "/.%2E/secret.txt",
    "/%2e%2e%2fsecret.txt",
    "/..%5csecret.txt",
    "/..\\secret.txt",
    "/player/../../secret.txt",
    "/player/%2e%2e/%2e%2e/secret.txt",
    "/../out-of-sight/secret.txt",  # its name begins like the folder's
    "/....//secret.txt",
    "/%252e%252e/secret.txt",
    "/%c0%ae%c0%ae/secret.txt",
    "/..;/secret.txt",
    "../secret.txt",
    "/secret.txt%00.html",
    "/../secret.txt%00.html",
    "/index.html%00",
    "{absolute}",
    "/{absolute}",
    "//{absolute}",
    "/%2f{absolute}",
    "file://{absolute}",
    "http://127.0.0.1/../secret.txt",
    "//..//secret.txt",
    "/link.txt",
    "/links/secret.txt",
    "/chain.txt",
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("escape", ESCAPES)
def test_nothing_outside_the_folder(server: FolderServer, export: Path, escape: str, method: str) -> None:
    (export / "link.txt").symlink_to(export.parent / "secret.txt")
    (export / "links").symlink_to(export.parent / "out-of-sight", target_is_directory=True)
    (export / "chain.txt").symlink_to(export / "link.txt")
    target = escape.replace("{absolute}", str(export.parent / "secret.txt"))
    answer = ask_raw(server, f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    assert re.match(rb"HTTP/1\.[01] 40[04] ", answer), answer
    assert SECRET not in answer
    assert f"Content-Length: {len(SECRET)}\r\n".encode() not in answer


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET http://[/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET http://[::1/ HTTP/1.1\r\n\r\n",
        b"GET http://[/\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x00\xff\x16\x03\x01\r\n\r\n",
        b"GET /%zz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nRange: bytes=9-1\r\n\r\n",
        b"GET /dynamic.mp4 HTTP/1.1\r\nHost: 127.0.0.1\r\nRange: cats=1-2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [\r\n\r\n",
        b"",
    ],
)
def test_broken_requests(server: FolderServer, capfd: pytest.CaptureFixture[str], request_bytes: bytes) -> None:
    answer = ask_raw(server, request_bytes)
    assert b" 500 " not in answer.split(b"\r\n")[0]
    assert ask(server, "/manifest.json").body == b"{}"
    assert capfd.readouterr() == ("", "")


def test_links_within_the_folder_are_followed_and_circles_are_not(server: FolderServer, export: Path) -> None:
    (export / "again.mp4").symlink_to("dynamic.mp4")
    (export / "circle").symlink_to("circle")
    assert ask(server, "/again.mp4").body == VIDEO
    assert ask(server, "/circle").status == 404


def test_pipes_are_no_files(server: FolderServer, export: Path) -> None:
    os.mkfifo(export / "pipe.mp4")
    assert ask(server, "/pipe.mp4").status == 404


def test_folder_may_itself_be_a_link(export: Path, tmp_path: Path) -> None:
    (tmp_path / "newest").symlink_to(export, target_is_directory=True)
    with FolderServer(tmp_path / "newest") as server:
        assert ask(server, "/dynamic.mp4").body == VIDEO


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:{port}", 200),
        ("127.0.0.1", 200),
        ("[::1]:{port}", 200),
        ("LOCALHOST", 200),
        ("evil.example:{port}", 400),
        ("127.0.0.1.evil.example", 400),
        ("localhost.evil.example:{port}", 400),
    ],
)
def test_pages_of_other_sites_cannot_read_by_a_name_of_theirs(server: FolderServer, host: str, status: int) -> None:
    answer = ask(server, "/manifest.json", headers={"Host": host.replace("{port}", str(server.port))})
    assert answer.status == status
    assert (answer.body == b"{}") == (status == 200)


def test_clients_that_break_off(server: FolderServer, export: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with (export / "large.mp4").open("wb") as file:
        file.truncate(50_000_000)
    for _ in range(4):
        client = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # reset, no goodbye
        client.sendall(b"GET /large.mp4 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        client.close()
    assert ask(server, "/dynamic.mp4").body == VIDEO
    time.sleep(0.2)  # until the threads have noticed
    assert capfd.readouterr() == ("", "")


def test_several_requests_at_once(server: FolderServer, export: Path) -> None:
    with (export / "large.mp4").open("wb") as file:
        file.truncate(50_000_000)
    clients = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(8)]
    for client in clients:
        client.sendall(b"GET /large.mp4 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        client.recv(1000)  # and no more for now
    assert ask(server, "/dynamic.mp4").body == VIDEO
    for client in clients:
        client.close()


def test_first_free_port_is_taken(export: Path) -> None:
    with FolderServer(export) as first, FolderServer(export) as second:
        assert first.port != second.port
        ports = (first.port, second.port)
        with pytest.raises(InputError, match=f"--port {ports[0]} to {ports[1]}: all are taken"):
            FolderServer(export, ports=ports)
        with FolderServer(export, ports=(*ports, 0)) as third:
            assert third.port not in ports
            assert third.url == f"http://127.0.0.1:{third.port}/"


def test_address_of_the_new_internet(export: Path) -> None:
    try:
        server = FolderServer(export, "::1")
    except InputError:
        pytest.skip("no IPv6 on this machine")
    with server:
        assert not server.reachable
        assert server.url == f"http://[::1]:{server.port}/"
        with urlopen(f"{server.url}manifest.json", timeout=10) as answer:
            assert answer.read() == b"{}"
