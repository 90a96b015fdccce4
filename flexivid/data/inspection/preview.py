"""Show clips to people: as a contact sheet, or as one HTML page that works offline.

Pixels are shown exactly as the model sees them, enlarged by whole factors only. The page embeds WebP animations, which
are lossless unless a clip is large. Frames are uint8 (t, h, w, 3).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from flexivid.data.decoding.facts import Facts
from flexivid.data.decoding.reader import ClipRequest
from flexivid.media.html import animation, picture, render
from flexivid.media.write import enlarge, film_strip, titled
from flexivid.runtime.printable import printable

LEAST_SIDE = 64  # pixels that the shorter side of a picture has on the sheet, by repeating pixels
COLUMNS = 8  # pictures of a clip on the sheet, at most

TEMPLATE = """{% block style %}
h1{font-size:1.3rem}table{margin:1rem 0}td{padding:.1rem 1rem .1rem 0}td:first-child,small{color:#777}
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(220px,1fr));gap:1.2rem}figure{margin:0}
img{width:100%;image-rendering:pixelated;border-radius:4px}figcaption{font-size:13px;overflow-wrap:anywhere}
{% endblock %}
{% block body %}
<table>{% for name, value in settings.items() %}<tr><td>{{ name }}</td><td>{{ value }}</td></tr>{% endfor %}</table>
<main>
{% for clip in clips %}
<figure><img src="{{ address(clip) }}" alt="" width="{{ clip.frames.shape[2] }}" height="{{ clip.frames.shape[1] }}">
<figcaption><b>{{ clip.title }}</b>
{% if clip.caption not in ("", clip.class_name) %}<br>{{ clip.caption }}{% endif %}
<br><small>{{ clip.size_and_rate }}; {{ clip.path }}</small></figcaption></figure>
{% endfor %}
</main>
{% endblock %}"""


class Clip(NamedTuple):
    """A clip and its source.

    >>> Clip(np.zeros((8, 32, 32, 3), np.uint8), "v/a.mp4", 1.5, 8.0, (12, 13), class_name="waves").title
    'a.mp4, waves, from 1.50 s, frames 12 to 13'
    """

    frames: np.ndarray  # uint8 (t, h, w, 3)
    path: str
    start_seconds: float | None  # when its first frame is shown, from the begin of the file; None where unknown
    fps: float  # frames a second of the clip; 0 where unknown
    indices: Sequence[int]  # numbers of its frames in the file
    class_name: str = ""  # empty without classes
    caption: str = ""  # empty without captions
    note: str = ""  # anything else, such as that it is mirrored

    @property
    def title(self) -> str:
        """File, class, and which frames, in one line."""
        frames = f"frames {self.indices[0]} to {self.indices[-1]}"
        start = "" if self.start_seconds is None else f"from {self.start_seconds:.2f} s"
        words = (Path(self.path).name, self.class_name, start, frames, self.note)
        return ", ".join(word for word in words if word)

    @property
    def size_and_rate(self) -> str:
        """Number of frames, their size, and frames a second."""
        count, height, width, _ = self.frames.shape
        return f"{count} frames of {width}x{height}, " + (f"{self.fps:.4g} fps" if self.fps else "rate unknown")


def look(loader: Any, addresses: Sequence[tuple[int, int]], *, class_names: Sequence[str] = ()) -> Iterator[Clip]:
    """Yield the clips that training would get; where a file fails, the next clip replaces it, and its note says so.

    ``loader`` is that of training, a ``ClipLoader`` over a ``ClipDataset``; addresses are (clip, epoch). ``VideoError``
    if neither a clip nor one of those after it can be decoded.
    """
    dataset = loader.dataset
    for (clip_asked_for, epoch), taken in zip(addresses, loader.one_by_one(addresses), strict=True):
        if taken is None:
            continue
        clip, frames = taken
        label = dataset.label(clip)
        described = _described(dataset.plan((clip, epoch)), np.array(frames))
        note = [described.note] * bool(described.note)
        note += ["in place of a clip that cannot be decoded"] * (clip != clip_asked_for)
        name = class_names[label] if 0 <= label < len(class_names) else ""
        yield described._replace(class_name=name, caption=dataset.caption(clip, epoch), note=", ".join(note))


def _described(request: ClipRequest, frames: np.ndarray) -> Clip:
    """A clip with its times, where its file states them."""
    indices, note = request.indices.tolist(), "mirrored" if request.flip else ""
    if not request.info:
        return Clip(frames, request.path, None, 0.0, indices, note=note)
    video = Facts.from_bytes(request.info)
    note = ", ".join(filter(None, (f"the file: {video.display_words}" * bool(video.display_words), note)))
    times = video.timestamps
    seconds = float(times[indices[-1]] - times[indices[0]])
    fps = (len(indices) - 1) / seconds if seconds > 0 else 0.0
    return Clip(frames, request.path, float(times[indices[0]] - times[0]), fps, indices, note=note)


def contact_sheet(clips: Sequence[Clip]) -> Image.Image:
    """Draw at most eight frames of each clip in a row, spread evenly over it, under a line that says its source.

    >>> contact_sheet([Clip(np.zeros((8, 64, 80, 3), np.uint8), "a.mp4", 0.0, 8.0, range(8))]).size
    (654, 88)
    """
    strips = [film_strip(enlarge(clip.frames, LEAST_SIDE), COLUMNS)[0] for clip in clips]
    return titled([printable(clip.title) for clip in clips], strips)


def page(clips: Sequence[Clip], *, title: str, settings: dict[str, Any]) -> str:
    """Write one HTML page with everything in it: animations, where each is from, and a table of settings.

    >>> clip = Clip(np.zeros((2, 8, 8, 3), np.uint8), "a&b.mp4", 0.0, 8.0, range(2))
    >>> text = page([clip], title="Clips", settings={"size": "8x8"})
    >>> text.count("<figure>"), "a&amp;b.mp4" in text, "http" in text
    (1, True, False)
    """
    content = {
        "title": title,
        "settings": settings,
        "clips": clips,
        "address": lambda clip: picture("webp", animation(clip.frames, clip.fps)),
    }
    return render(TEMPLATE, content)


def write_preview(folder: Path, clips: Sequence[Clip], *, title: str, settings: dict[str, Any]) -> tuple[Path, Path]:
    """Write ``clips.png`` and ``clips.html`` into a folder, which is made if need be, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    contact_sheet(clips).save(folder / "clips.png")
    (folder / "clips.html").write_text(page(clips, title=title, settings=settings), encoding="utf-8")
    return folder / "clips.png", folder / "clips.html"
