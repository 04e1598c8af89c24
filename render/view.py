"""Play an exported clip in this machine's browser: serves its folder and opens it.

    python view.py OUT
    python view.py OUT --port 8080 --no-open
    python view.py OUT --host 0.0.0.0    # also for other machines in the network

Press Ctrl-C to stop.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # during imports there is nothing to clean up

from maskvolume.options import option, parse_options, positional
from maskvolume.runtime.errors import InputError, run_program
from maskvolume.web.server import LOOPBACK, FolderServer

FIRST_PORT, NUM_PORTS = 8000, 100
NEEDED = ("manifest.json", "index.html")


@dataclass(frozen=True)
class ViewOptions:
    """Options of view."""

    folder: str = positional("the exported clip: the folder that export_web.py made")
    host: str = option(
        LOOPBACK,
        "address to serve on; any but this one lets others in the network see the clip; 0.0.0.0: all addresses",
    )
    port: int | None = option(
        None, f"port to serve on, 0 takes any free one; none: {FIRST_PORT}, or where it is taken the next free one"
    )
    open: bool = option(True, "open the clip in the browser")


def find_export(folder: str) -> Path:
    """The path of a folder with an exported clip.

    Raises:
        InputError: the folder is missing or holds no exported clip.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        fault = "is a file where a folder is expected" if path.exists() else "no such folder"
        raise InputError(f"{path}: {fault}; give the folder that export_web.py made")
    for name in NEEDED:
        if not (path / name).is_file():
            raise InputError(f"{path}: no exported clip, {name} is missing; give the folder that export_web.py made")
    return path


def open_browser(url: str) -> None:
    """Open an address in the browser, or print that there is no browser."""
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        browser = None
    # Without a display Python finds text browsers, which can't play the clip and would take over the terminal.
    if browser is not None and type(browser) is webbrowser.GenericBrowser and "BROWSER" not in os.environ:
        browser = None
    if browser is None or not browser.open(url):
        print("no browser was found here; open the address in one", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Serve an exported clip until interrupted."""
    options = parse_options(
        ViewOptions,
        argv,
        prog="view.py",
        description="Play an exported clip in the browser: serves its folder on this machine, and opens it.",
    )
    folder = find_export(options.folder)
    ports = range(FIRST_PORT, FIRST_PORT + NUM_PORTS) if options.port is None else (options.port,)
    server = FolderServer(folder, options.host, ports)
    print(f"{folder}: {server.url} (Ctrl-C ends)", flush=True)
    if server.reachable:
        print(f"note: others in the network can see it too, at port {server.port} of this machine", flush=True)
    if options.open:
        threading.Thread(target=open_browser, args=(server.url,), daemon=True).start()
    server.serve()
    print("\nstopped")


if __name__ == "__main__":
    run_program(main)
