# SPDX-License-Identifier: BSD-2-Clause
"""The frame of every HTML report: one file, no network, readable on a phone, on paper, without colour and script."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

from harness.visible import visible

_STYLE = """
:root{color-scheme:light dark;--ink:#1c2128;--paper:#fff;--faint:#57606a;--line:#d0d7de;--box:#f6f8fa;
--good:#1a7f37;--bad:#cf222e;--odd:#9a6700}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--paper:#0d1117;--faint:#9198a1;--line:#3d444d;--box:#151b23;
--good:#3fb950;--bad:#ff7b72;--odd:#d29922}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:62rem;padding:1rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.4rem;line-height:1.25;margin:.2rem 0}h2{font-size:1.15rem;margin:2rem 0 .5rem;border-bottom:1px solid
var(--line)}h3{font-size:1rem;margin:1rem 0 .3rem}
p{margin:.4rem 0}.faint{color:var(--faint);font-size:.9rem}
.banner{border:3px solid var(--bad);padding:.6rem;font-weight:bold;margin:.6rem 0}
.good{color:var(--good)}.bad{color:var(--bad)}.odd{color:var(--odd)}
.tiles{display:flex;flex-wrap:wrap;gap:.5rem;margin:.8rem 0;padding:0;list-style:none}
.tiles li{border:1px solid var(--line);border-radius:.4rem;padding:.3rem .7rem;min-width:5.5rem}
.tiles b{display:block;font-size:1.5rem;line-height:1.2}
details{border:1px solid var(--line);border-radius:.4rem;margin:.35rem 0;padding:.15rem .6rem}
details[open]{padding-bottom:.6rem}summary{cursor:pointer;padding:.25rem 0}
summary .mark{display:inline-block;min-width:7.5rem;font-weight:bold;margin-right:.4rem}
summary .time{color:var(--faint);font-size:.85rem;float:right;margin-left:.5rem}
summary .name{display:block;color:var(--faint);font:.8rem ui-monospace,monospace}
.cause{font-weight:bold;margin:.2rem 0 .4rem}
.find{position:sticky;top:0;width:100%;font:inherit;padding:.3rem .5rem;margin:.4rem 0;background:var(--paper);
color:inherit;border:1px solid var(--line);border-radius:.4rem}
.out{display:none}
details details{border:0;padding:0;margin:.2rem 0}
pre{background:var(--box);border-radius:.4rem;padding:.6rem;overflow-x:auto;font:13px/1.4 ui-monospace,monospace;
margin:.3rem 0;white-space:pre;max-height:32rem;overflow-y:auto}
code{font-family:ui-monospace,monospace;font-size:.9em}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem .8rem;margin:.5rem 0}dt{color:var(--faint)}dd{margin:0}
svg{max-width:100%;height:auto}svg text{fill:currentColor;font:12px system-ui,sans-serif}
table{border-collapse:collapse;display:block;overflow-x:auto}td,th{border:1px solid var(--line);padding:.2rem .5rem;
text-align:left;vertical-align:top}th{white-space:nowrap}
@media(max-width:30rem){body{padding:.6rem;font-size:15px}summary .mark{min-width:0}dl{display:block}
dd{margin-bottom:.4rem}}
@media print{details{break-inside:avoid}pre{max-height:none;white-space:pre-wrap}}
"""


# Rows are found by words as they are typed.  Whoever lets no script run, as Jenkins does, has rows without the box.
_SEARCH = """
const rows=[...document.querySelectorAll(".row")].map(e=>[e,e.firstChild.textContent.toLowerCase()]);
const place=document.querySelector(".search");
if(place&&rows.length>1){const box=document.createElement("input"),said=document.createElement("p");
box.type="search";box.className="find";box.placeholder="find tests: words, names, verdicts";
box.setAttribute("aria-label",box.placeholder);said.className="faint";place.append(box,said);
box.oninput=()=>{const words=box.value.toLowerCase().split(/\\s+/).filter(Boolean);let n=0;
for(const [e,text] of rows){const here=words.every(w=>text.includes(w));n+=here;e.classList.toggle("out",!here)}
for(const head of document.querySelectorAll(".file"))head.classList.toggle("out",
!head.querySelector(".row:not(.out)"));said.textContent=words.length?n+" of "+rows.length:""}}
"""


def named(text: str) -> str:
    """Return a long NAME for a page: it may be broken between its words, and nowhere else if there is room."""
    return re.sub(r"(::|/|_+|&lt;|\[)", r"\1<wbr>", shown(text))


def shown(text: str) -> str:
    """Return TEXT for a page: markup escaped, and what a browser could not show made visible."""
    return escape(visible(text))


def page(title: str, body: Iterable[str], *, searchable: bool = False) -> str:
    """Return a whole HTML document; a SEARCHABLE one gets a box in its element `.search` that finds its `.row`s."""
    script = f"<script>{_SEARCH}</script>\n" if searchable else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{shown(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + f"\n{script}</body></html>\n"
    )


def preformatted(text: str) -> str:
    """Return TEXT as it is, in fixed width."""
    return f"<pre>{shown(text)}</pre>"


def folded(title: str, text: str, *, is_open: bool = False) -> str:
    """Return a titled block that opens at a touch, or nothing where there is no TEXT."""
    if not text.strip():
        return ""
    return f"<details{' open' if is_open else ''}><summary>{shown(title)}</summary>{preformatted(text)}</details>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a list of names and values; empty values are left out."""
    rows = "".join(f"<dt>{shown(name)}</dt><dd>{named(value)}</dd>" for name, value in pairs if value)
    return f"<dl>{rows}</dl>"
