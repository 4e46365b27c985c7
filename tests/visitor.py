"""A browser's tab for the tests, and a server of files for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CHROMIUM_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which a local server gives out a folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


class Visitor:
    """A tab that remembers what went wrong in it."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.address = address
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(30_000)
        self.tab = self.context.new_page()
        self.trouble: list[str] = []
        self.tab.on("console", self._console)
        self.tab.on("pageerror", lambda error: self.trouble.append(f"error: {error}"))
        self.tab.on("requestfailed", self._failed)
        self.tab.on("response", self._response)
        self.tab.on("request", self._request)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.trouble.append(f"console {message.type}: {message.text}")

    def _failed(self, request: Any) -> None:
        # A visitor who leaves a page stops what it is still loading.
        if request.failure != "net::ERR_ABORTED":
            self.trouble.append(f"failed: {request.url}: {request.failure}")

    def _response(self, response: Any) -> None:
        if response.status >= 400:
            self.trouble.append(f"{response.status}: {response.url}")

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.address, "data:", "blob:", "about:")):
            self.trouble.append(f"another host: {request.url}")

    def widget(self, name: str) -> Any:
        """A widget of the page ``page.html``, once it has been scrolled to and answers."""
        widget = self.open("page.html").locator(f"minillm-{name}")
        widget.scroll_into_view_if_needed()
        widget.locator(".minillm-live").wait_for()
        return widget

    def open(self, path: str) -> Any:
        self.tab.goto(f"{self.address}/{path}", wait_until="load")
        self.tab.evaluate("() => window.MathJax?.startup?.promise")
        return self.tab
