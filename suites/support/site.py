# SPDX-License-Identifier: BSD-2-Clause
"""Hooks of mkdocs: links that lead out of docs/ to files of the repository become names of these files."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_OUTWARD = re.compile(r"\[(?P<text>[^\]]*)\]\(\.\./(?P<file>[^)#]+)\)")
# What mkdocs --strict counts.
_LOG = logging.getLogger("mkdocs.hooks.site")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Return MARKDOWN of PAGE without links to files that the site has not; a file that is not there is a dead link."""

    def replaced(link: re.Match[str]) -> str:
        if not (_ROOT / link["file"]).exists():
            _LOG.warning("%s links to %s, which is not there", page.file.src_uri, link["file"])
        text = link["text"].strip("`")
        return f"`{text}`" if text == link["file"] else f"{link['text']} (`{link['file']}`)"

    return _OUTWARD.sub(replaced, markdown)
