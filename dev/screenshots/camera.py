"""Chromium, driven by Playwright, in front of the management UI."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.sync_api import sync_playwright

from dev.process import ServerError

WIDTH, HEIGHT = 1280, 900
#: White below a picture, in pixels.
MARGIN = 8
#: Largest picture, in bytes.
MAX_BYTES = 200_000

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
]
#: Milliseconds for a page to be drawn, and again after a click: it asks for its data and draws them in steps.
_DRAWN = 2_500
#: Seconds within which a list must have been filtered.
_FILTERED = 120.0
#: What stands above every page stays there when the page is scrolled, and would cover what is taken.
_HEADER = """shown => {
    document.getElementById("header").style.cssText = shown ? "position: static" : "display: none";
    document.getElementById("main").style.paddingTop = "8px";
    document.getElementById("rhs").style.display = "none";
}"""
#: What the UI remembers in the browser: the virtual host that is looked at, and a column besides the usual ones.
_CHOICES = {"vhost": "/", "column-queues-consumers": "true"}


@dataclass(frozen=True)
class Shot:
    """A picture: its name and its page's address behind the #.

    Args:
        names: of queues, a regular expression: which of them are listed.
        opened: headings of the sections that are to be open; the others are as they are.
        until: the last element of the page that is shown, or all.
        header: with what stands above every page.
    """

    file: str
    path: str = "/queues"
    names: str = ""
    opened: Sequence[str] = ()
    until: str = "#main"
    header: bool = False


def queue(name: str) -> str:
    """The address of a queue's page."""
    return f"/queues/%2F/{quote(name, safe='')}"


def exchange(name: str) -> str:
    """The address of an exchange's page."""
    return f"/exchanges/%2F/{quote(name, safe='')}"


class Camera:
    """A browser that has logged in; what it takes is put into a folder."""

    def __init__(self, page: Any, url: str, folder: Path) -> None:
        self._page = page
        self._url = url
        self._folder = folder

    def take(self, shot: Shot) -> None:
        """Take a picture."""
        self._go(shot.path)
        if shot.names:
            self._filter(shot.names)
        for heading in shot.opened:
            self._open(heading)
        self._page.evaluate(_HEADER, shot.header)
        top = self._page.locator("#header" if shot.header else "#main").first.bounding_box()
        last = self._page.locator(shot.until).first.bounding_box()
        height = last["y"] + last["height"] - top["y"] + MARGIN
        clip = {"x": 0, "y": top["y"], "width": WIDTH, "height": height}
        file = self._folder / f"{shot.file}.png"
        self._page.screenshot(path=file, full_page=True, clip=clip)
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise ServerError(f"{file.name} has {size} bytes, more than {MAX_BYTES}: show less of it")

    def features(self) -> dict[str, list[str]]:
        """The signs in the column Features of every queue, by queue."""
        self._go("/queues")
        rows = self._page.locator("#main table.list tbody tr").all()
        return {row.locator("a").first.inner_text(): row.locator("abbr[title*=': ']").all_inner_texts() for row in rows}

    def _filter(self, names: str) -> None:
        """List these queues alone. The page is drawn anew every few seconds, and forgets what was being typed then."""
        deadline = time.monotonic() + _FILTERED
        while not self._lists_only(names):
            if time.monotonic() > deadline:
                raise ServerError(f"the list of queues cannot be filtered to {names}")
            self._page.check("#queues-filter-regex-mode")
            self._page.fill("#queues-name", names)
            self._page.press("#queues-name", "Enter")
            self._page.wait_for_timeout(_DRAWN)
        self._page.wait_for_timeout(_DRAWN)

    def _lists_only(self, names: str) -> bool:
        listed = self._page.locator("#main table.list tbody a[href*='/queues/']").all_inner_texts()
        return bool(listed) and all(re.search(names, name) for name in listed)

    def _open(self, heading: str) -> None:
        """Open a section, unless the UI remembers that it was opened before."""
        section = self._page.locator("#main h2", has_text=heading).first
        if not section.locator("xpath=following-sibling::div").first.is_visible():
            section.click()
            self._page.wait_for_timeout(_DRAWN)

    def _go(self, path: str) -> None:
        self._page.goto(f"{self._url}/#/")
        self._page.goto(f"{self._url}/#{path}")
        self._page.wait_for_timeout(_DRAWN)

    def choose(self) -> None:
        """Look at one virtual host, and show how many consume each queue."""
        self._go("/queues")
        for name, value in _CHOICES.items():
            self._page.evaluate("([name, value]) => localStorage.setItem(name, value)", [f"rabbitmq.{name}", value])
        self._page.reload()
        self._page.wait_for_timeout(_DRAWN)


def chromium() -> str:
    """The browser of this machine.

    Raises:
        ServerError: it has none.
    """
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise ServerError("there is no Chromium here: on Debian or Ubuntu, sudo apt-get install chromium")
    return program


@contextmanager
def camera(url: str, user: str, password: str, folder: Path) -> Iterator[Camera]:
    """A browser with a profile of its own, logged in to the management UI at `url`."""
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as profile:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=chromium(),
            headless=True,
            args=_FLAGS,
            viewport={"width": WIDTH, "height": HEIGHT},
        )
        try:
            page = context.new_page()
            page.set_default_timeout(120_000)
            page.goto(url)
            page.fill("input[name=username]", user)
            page.fill("input[name=password]", password)
            page.click("input[type=submit]")
            page.wait_for_selector("#main h1")
            yield Camera(page, url, folder)
        finally:
            context.close()
