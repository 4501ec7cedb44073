# SPDX-License-Identifier: BSD-2-Clause
"""A page as a real browser shows it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (360, 1280)  # px: a telephone, a desk

needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this host (Debian: apt-get install chromium)"
)

# The page in a frame as wide as a telephone's screen; what it measures there ends in the outer page.
_FRAME = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">
<iframe id="f" style="border:0;width:{width}px;height:800px"></iframe>
<pre id="out"></pre><script>
const frame = document.getElementById("f");
frame.onload = () => {{
  const inner = frame.contentDocument, root = inner.documentElement;
  const all = (selector) => [...inner.querySelectorAll(selector)];
  const right = (element) => element.getBoundingClientRect().right;
  document.getElementById("out").textContent = JSON.stringify({{
    wide: root.scrollWidth,
    title: inner.title,
    open: all("details[open]").length,
    clipped: all("summary,dd,h1,h2,p,li,svg").filter(e => right(e) > {width} + 1).length,
    cut: all("svg text").filter(e => right(e) > right(e.ownerSVGElement) + 1).map(e => e.textContent),
    bars: all("svg rect").length,
    plots: all("svg").map(e => e.getAttribute("aria-label")),
    found: (() => {{
      const box = inner.querySelector(".find"), typed = {typed};
      if (!box) return null;
      box.value = typed;
      box.oninput();
      return all(".row").filter(e => e.offsetParent).map(e => e.querySelector(".name").textContent);
    }})(),
    smallest: Math.min(...all("svg text").map(e => e.getBoundingClientRect().height)),
    silent: all(".good,.bad,.odd").filter(e => !e.textContent.trim()).length,
    requests: frame.contentWindow.performance.getEntriesByType("resource").map(e => e.name),
    size: parseFloat(getComputedStyle(inner.body).fontSize)}});
}};
frame.srcdoc = {page};
</script>"""


def look(page: str, width: int, folder: Path, typed: str = "") -> dict[str, Any]:
    """Return what Chromium finds in PAGE shown WIDTH pixels wide, and the names of the rows it has for what is TYPED.

    `wide` is how wide it becomes, `clipped` what is out of sight to the right, `cut` words that leave their plot,
    `smallest` the height of the smallest words in plots (px), `silent` what only a colour would tell, `requests` what
    it wanted from a network, `complaints` what the browser's console says.
    """
    outer = folder / "frame.html"
    inner, words = (json.dumps(text).replace("</", "<\\/") for text in (page, typed))
    outer.write_text(_FRAME.format(width=width, page=inner, typed=words), encoding="utf-8")
    argv = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    argv += ["--enable-logging=stderr", "--virtual-time-budget=5000", "--window-size=1400,900", "--dump-dom"]
    done = subprocess.run([*argv, outer.as_uri()], capture_output=True, text=True, check=False, timeout=120)
    found = re.search(r'<pre id="out">(\{.*?\})</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    seen["complaints"] = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return seen


def assert_readable(seen: dict[str, Any], width: int) -> None:
    """Check what holds of every page: nothing is out of sight, too small, told by colour alone, or fetched."""
    assert seen["wide"] <= width, seen
    assert seen["clipped"] == 0, seen
    assert seen["cut"] == [], seen["cut"]
    assert seen["size"] >= 15
    assert seen["smallest"] is None or seen["smallest"] >= 9, seen
    assert seen["silent"] == 0
    assert seen["requests"] == []
    assert seen["complaints"] == [], seen["complaints"]
