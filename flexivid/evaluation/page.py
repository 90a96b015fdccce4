"""An evaluation as one HTML page: curve, table, the same seeds at every budget, protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flexivid.media.html import animation, picture, render

TEMPLATE = """{% block style %}
h2{font-size:1.1rem;margin-top:2rem}p{color:#666}table{font-variant-numeric:tabular-nums}
th,td{padding:.2rem .8rem .2rem 0;text-align:right;font-weight:normal;vertical-align:top;white-space:nowrap}
th{border-bottom:1px solid #bbb;color:#777}th:first-child,td:first-child{text-align:left}
.facts td{text-align:left;white-space:normal;overflow-wrap:anywhere}.facts td:first-child{color:#777;white-space:nowrap}
.films{display:grid;gap:4px;align-items:center;overflow-x:auto}
.films b,.films span{font-size:13px;overflow-wrap:anywhere;font-weight:normal;color:#777}.films b{color:inherit}
.films img{width:100%;min-width:64px;image-rendering:pixelated;border-radius:3px;display:block}
.curve{max-width:100%;background:#fff;border-radius:4px}
{% endblock %}
{% block body %}
{% if note %}<p>{{ note }}</p>{% endif %}
{% if curve %}<img class="curve" alt="" src="{{ curve }}">{% endif %}
<h2>Scores</h2><table><tr>{% for word in table[0] %}<th>{{ word }}</th>{% endfor %}</tr>
{% for row in table[1:] %}<tr>{% for word in row %}<td>{{ word }}</td>{% endfor %}</tr>{% endfor %}</table>
<h2>Samples</h2>
<div class="films" style="grid-template-columns:minmax(8rem,16rem) repeat({{ columns|length }},minmax(64px,1fr))">
<span></span>{% for name in columns %}<span>{{ name }}</span>{% endfor %}
{% for row in rows %}
<div><b>{{ row.title }}</b><br><span>{{ row.note }}</span></div>
{% for video in row.videos %}<img src="{{ address(video) }}" alt="{{ row.title }}">{% endfor %}
{% endfor %}
</div>
<h2>Protocol</h2><table class="facts">
{% for name, value in protocol.items() %}<tr><td>{{ name }}</td><td>{{ value }}</td></tr>{% endfor %}
</table>
{% endblock %}"""


class Row(NamedTuple):
    """Videos beside each other, each uint8 (t, h, w, 3), with what they have in common."""

    title: str
    note: str
    videos: Sequence[np.ndarray]


class Films(NamedTuple):
    """Rows of equally many videos, at ``fps`` frames a second; ``columns`` stand above them."""

    columns: Sequence[str]
    rows: Sequence[Row]
    fps: float


def page(
    title: str,
    *,
    table: Sequence[Sequence[str]],
    protocol: Mapping[str, Any],
    films: Films,
    curve: bytes | None = None,
    note: str = "",
) -> str:
    """Write the page: a heading, a sentence below it, the curve (PNG), a table whose first row is the head, videos.

    Example:
        >>> films = Films(["seed 0"], [Row("budget 1", "20x1x2x2", [np.zeros((2, 8, 8, 3), np.uint8)])], 8.0)
        >>> text = page("a & b", table=[["fvd"], ["3.5"]], protocol={"seed": 0}, films=films)
        >>> "a &amp; b" in text, text.count("<img"), "http" in text
        (True, 1, False)
    """
    content = {
        "title": title,
        "note": note,
        "curve": picture("png", curve) if curve else "",
        "table": table,
        "columns": films.columns,
        "rows": films.rows,
        "address": lambda frames: picture("webp", animation(frames, films.fps)),
        "protocol": {
            name: json.dumps(value) if isinstance(value, (dict, list)) else value for name, value in protocol.items()
        },
    }
    return render(TEMPLATE, content)
