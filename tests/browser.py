"""Pages in a headless Chromium, and what they say after keys and clicks."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom")
SEEN = re.compile(r'<pre id="seen">(.*?)</pre>', re.DOTALL)

# What scripts may use: `press` and `click` do what a person does, `text` is what they can read.
TOOLS = """
const press = (key) => (document.activeElement ?? document.body).dispatchEvent(
  new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const find = (selector) => document.querySelector(selector);
const click = (selector) =>
  find(selector).dispatchEvent(new MouseEvent("click", { bubbles: true }));
const text = (selector) => find(selector).textContent;
const seen = {};
"""
SHOW = """
const made = document.createElement("pre");
made.id = "seen";
made.textContent = JSON.stringify(seen);
document.body.append(made);
"""


def visit(page: str, folder: Path, script: str = "", address: str = "") -> dict[str, Any]:
    """What `script` put into `seen` on a page opened at `#address`; fails on console messages.

    Skips where there is no Chromium.
    """
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        pytest.skip(f"needs a Chromium: found none of {', '.join(NAMES)}")
    path = folder / "page.html"
    added = f'<script type="module">{TOOLS}{script}{SHOW}</script>'
    path.write_text(page.replace("</body>", f"{added}</body>"), "utf-8")
    command = [
        browser,
        *FLAGS,
        f"--user-data-dir={folder / 'profile'}",
        f"{path.as_uri()}{address}",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    said = [line for line in ran.stderr.splitlines() if "CONSOLE" in line]
    assert not said, "\n".join(said)
    match = SEEN.search(ran.stdout)
    assert match, f"the script did not come to its end:\n{ran.stdout[-2000:]}"
    return json.loads(html.unescape(match[1]))
