"""An evaluation as one HTML page that works without a network: curve, table, the same seeds at every budget, protocol.

Animations are WebP in the page itself, lossless unless they are large. Frames are uint8 (t, h, w, 3).
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flexivid.data.inspection.preview import animation
from flexivid.runtime.printable import printable

STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1200px;padding:0 1rem;color:#222}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}p{color:#666}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.2rem .8rem .2rem 0;text-align:right;font-weight:normal;vertical-align:top;white-space:nowrap}
th{border-bottom:1px solid #bbb;color:#777}th:first-child,td:first-child{text-align:left}
.facts td{text-align:left;white-space:normal;overflow-wrap:anywhere}.facts td:first-child{color:#777;white-space:nowrap}
.films{display:grid;gap:4px;align-items:center;overflow-x:auto}
.films b,.films span{font-size:13px;overflow-wrap:anywhere;font-weight:normal;color:#777}.films b{color:inherit}
.films img{width:100%;min-width:64px;image-rendering:pixelated;border-radius:3px;display:block}
.curve{max-width:100%;background:#fff;border-radius:4px}
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}th{border-color:#555}}"""


class Row(NamedTuple):
    """Videos beside each other.

    Args:
        title: What they have in common.
        note: More about it.
        videos: Each uint8 (t, h, w, 3).
    """

    title: str
    note: str
    videos: Sequence[np.ndarray]


class Films(NamedTuple):
    """Rows of videos whose columns belong together.

    Args:
        columns: What stands above each column.
        rows: All of the same number of videos.
        fps: Frames a second.
    """

    columns: Sequence[str]
    rows: Sequence[Row]
    fps: float


def page(
    title: str,
    *,
    table: Sequence[Sequence[str]],
    facts: Mapping[str, Any],
    films: Films,
    curve: bytes | None = None,
    note: str = "",
) -> str:
    """Write the page.

    Args:
        title: Heading.
        table: Rows of words, the first one the head.
        facts: The protocol.
        films: Videos to look at.
        curve: A PNG.
        note: A sentence below the heading.

    Example:
        >>> films = Films(["seed 0"], [Row("budget 1", "20x1x2x2", [np.zeros((2, 8, 8, 3), np.uint8)])], 8.0)
        >>> text = page("a & b", table=[["fvd"], ["3.5"]], facts={"seed": 0}, films=films)
        >>> "a &amp; b" in text, text.count("<img"), "http" in text
        (True, 1, False)
    """
    head, *body = table
    parts = [f"<h1>{_escape(title)}</h1>", f"<p>{_escape(note)}</p>" if note else ""]
    parts.append(f'<img class="curve" alt="" src="{_data("png", curve)}">' if curve else "")
    parts.append(f"<h2>Scores</h2><table>{_cells('th', head)}{''.join(_cells('td', row) for row in body)}</table>")
    parts.append(f"<h2>Samples</h2>{_films(films)}")
    told = "".join(_cells("td", (name, _told(value))) for name, value in facts.items())
    parts.append(f'<h2>Protocol</h2><table class="facts">{told}</table>')
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{_escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>\n'
        + "\n".join(part for part in parts if part)
        + "</html>\n"
    )


def _films(films: Films) -> str:
    cells = ["<span></span>", *(f"<span>{_escape(name)}</span>" for name in films.columns)]
    for row in films.rows:
        cells.append(f"<div><b>{_escape(row.title)}</b><br><span>{_escape(row.note)}</span></div>")
        pictures = (_data("webp", animation(frames, films.fps)) for frames in row.videos)
        cells += [f'<img src="{picture}" alt="{_escape(row.title)}">' for picture in pictures]
    columns = f"minmax(8rem,16rem) repeat({len(films.columns)},minmax(64px,1fr))"
    return f'<div class="films" style="grid-template-columns:{columns}">{"".join(cells)}</div>'


def _cells(tag: str, words: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{_escape(word)}</{tag}>' for word in words)}</tr>"


def _told(value: Any) -> str:
    return json.dumps(value) if isinstance(value, (dict, list)) else str(value)


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _escape(value: object) -> str:
    return html.escape(printable(str(value)))
