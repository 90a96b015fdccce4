"""Pages that need no network: one skeleton, everything in the page, all text escaped.

Templates are Jinja2 and fill the blocks ``style`` and ``body`` of the skeleton. Names of files and captions are other
people's: what cannot be seen in them is spelt out (see ``runtime.printable``), and markup in them is shown as text.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

from flexivid.runtime.printable import printable

LARGE_BYTES = 8 << 20  # of raw frames; beyond it an animation is compressed with loss
SKELETON = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<meta name="viewport" content="width=device-width"><style>
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1200px;padding:0 1rem;color:#222}
h1{font-size:1.4rem}table{border-collapse:collapse}
{% block style %}{% endblock %}
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}th{border-color:#555}}</style>
<h1>{{ title }}</h1>
{% block body %}{% endblock %}
</html>
"""


def render(template: str, content: Mapping[str, Any]) -> str:
    """Write a page: a template that fills the blocks ``style`` and ``body``, and the values it names with a ``title``.

    Example:
        >>> text = render("{% block body %}<p>{{ path }}{% endblock %}", {"title": "Clips", "path": "<b>.mp4"})
        >>> "<h1>Clips</h1>" in text, "<p>&lt;b&gt;.mp4" in text
        (True, True)
    """
    environment = Environment(
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else printable(str(value)),
        loader=DictLoader({"skeleton": SKELETON}),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.from_string('{% extends "skeleton" %}' + template).render(content)


def picture(kind: str, content: bytes) -> Markup:
    """The address of a picture that is in the page itself."""
    return Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")  # base64 holds no markup


def animation(frames: np.ndarray, fps: float) -> bytes:
    """Encode frames, uint8 (t, h, w, 3), as a looping WebP; lossless unless it is large.

    Example:
        >>> clip = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
        >>> shown = Image.open(io.BytesIO(animation(clip, 8.0)))
        >>> shown.n_frames, bool((np.asarray(shown.convert("RGB")) == clip[0]).all())
        (3, True)
    """
    first, *others = (Image.fromarray(frame) for frame in frames)
    is_large = frames.nbytes > LARGE_BYTES
    file = io.BytesIO()
    first.save(
        file,
        "webp",
        save_all=True,
        append_images=others,
        duration=round(1000 / (fps or 8)),
        loop=0,
        minimize_size=False,
        method=2,
        lossless=not is_large,
        quality=90 if is_large else 50,
    )
    return file.getvalue()
