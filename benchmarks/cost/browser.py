"""A browser for testing the player: headless Chromium with WebGL2 rendered on the CPU.

Tests use the fixtures ``chromium`` and ``open_page`` of tests/conftest.py, which skip if there is no Chromium.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskvolume.runtime.errors import InputError
from maskvolume.web.server import FolderServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Response

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",  # the sandbox needs privileges that containers lack
    "--use-gl=angle",
    "--use-angle=swiftshader",  # the same pixels on every machine, without a GPU
    "--enable-unsafe-swiftshader",
    "--autoplay-policy=no-user-gesture-required",
    "--force-color-profile=srgb",
    "--disable-dev-shm-usage",  # /dev/shm has 64 MB in containers, too little for videos
)
DEFAULT_TIMEOUT_MS = 30_000
MISSING = "no Chromium found: install one (apt install chromium), or set MASKVOLUME_CHROMIUM to its program"


def find_chromium() -> str | None:
    """The program of an installed Chromium; None if there is none."""
    program = os.environ.get("MASKVOLUME_CHROMIUM")
    if program:
        assert shutil.which(program), f"MASKVOLUME_CHROMIUM: {program} is not a program"
        return program
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def launch_chromium(program: str, flags: tuple[str, ...] = FLAGS) -> Iterator[Browser]:
    """Start a headless browser, which takes about a second, and yield it.

    Raises:
        InputError: Playwright, part of the dev extra, is not installed.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise InputError("Playwright is not installed; run make benchmark-web, or pip install -e '.[dev]'") from None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(flags))
        yield browser
        browser.close()


@dataclass
class OpenPage:
    """A page of a served folder.

    Attributes:
        page: Playwright's page.
        url: address of the folder, ``file:`` or ``http:``.
        problems: the page's errors and warnings in the console, uncaught errors,
            and failed requests.
    """

    page: Page
    url: str
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._note_console)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("response", self._note_answer)

    def goto(self, path: str = "index.html") -> OpenPage:
        """Load a page of the folder and its scripts; returns self."""
        self.page.goto(self.url + path)
        return self

    def run(self, script: str, argument: Any = None) -> Any:
        """Run a JavaScript expression or function in the page; returns its value, or that of its promise."""
        return self.page.evaluate(script, argument)

    def check(self) -> None:
        """Assert that the page has no problems."""
        assert not self.problems, "\n".join(self.problems)

    def _note_answer(self, answer: Response) -> None:
        if answer.status >= 400:
            self.problems.append(f"{answer.status}: {answer.url}")

    def _note_console(self, message: ConsoleMessage) -> None:
        # The driver warns that reading pixels from the GPU is slow; tests do it on purpose.
        if message.type in ("error", "warning") and "GPU stall due to ReadPixels" not in message.text:
            self.problems.append(f"{message.type}: {message.text}")


@contextmanager
def new_page(browser: Browser, folder: Path, served: bool = True, **options: Any) -> Iterator[OpenPage]:
    """Open a page of a folder in its own context, serving the folder meanwhile, and yield it.

    Args:
        browser: from ``launch_chromium``.
        folder: the folder.
        served: whether to serve over HTTP; else the files are opened like by a double click.
        options: of Playwright's ``new_context``, such as viewport, has_touch or device_scale_factor.
    """
    from playwright.sync_api import Error

    context = browser.new_context(**options)
    context.set_default_timeout(DEFAULT_TIMEOUT_MS)
    try:
        if not served:
            yield OpenPage(context.new_page(), f"{folder.resolve().as_uri()}/")
            return
        with FolderServer(folder) as server:
            yield OpenPage(context.new_page(), server.url)
    finally:
        try:
            context.close()
        except Error as error:  # the browser crashed, and the test has failed already
            print(f"browser: {error}")
