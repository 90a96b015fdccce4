"""Make a small set of real H.264 videos: handwritten digits that move in straight lines and bounce at the walls.

The digits are the 1797 scans of scikit-learn's ``load_digits`` (nothing is downloaded). The folder of a clip is its
class; one clip in ten shows two smaller digits of that class. Held-out clips show scans that no training clip shows.
The same arguments give the same bytes, whatever the number of workers.

    python data/moving_digits.py --output data/moving_digits
    python data/moving_digits.py --output data/varied_digits --vary --num-clips 20000    # every clip bends its scan

Imports no torch. Images are float32 arrays (height, width) in [0, 1]; positions are (row, column) in pixels.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import sys
from collections import deque
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

VERSION = 2  # raise it when the same recipe gives other bytes
NUM_CLASSES = 10
FPS = 16
X264 = {"crf": "12", "preset": "medium", "x264-params": "mbtree=0"}  # mbtree makes tiny frames differ from run to run
SPEEDS = (0.3, 1.0)  # pixels per frame
HELD_OUT_SCANS = 0.2  # the fraction of the scans of each class that only held-out clips show
PAIRS = 0.1  # the fraction of the clips that show two digits
PAIR_SCALE = 0.7  # two digits of full size would hide each other in a small frame
SPLITS = ("train", "held_out")
# Ranges of --vary. 1437 training scans in 20,000 clips would be learned by heart; bent ones are all different.
ROTATIONS = (-12.0, 12.0)  # degrees
SHEARS = (-0.15, 0.15)  # columns per row: upright to slanted
SCALES = (0.85, 1.1)  # of the size of a digit
THICKNESSES = (0.22, 0.38)  # where the ramp of ``enlarge`` starts: low is a bold stroke, high a thin one
MOST_OVERLAP = 0.05  # of the ink of a digit, in any frame; digits on top of each other are not legible
TRIES = 300  # of paths with less overlap
FINE = 4  # a bent digit is drawn this many times larger first: smooth edges


class Recipe(NamedTuple):
    """Everything that decides the bytes of the data set.

    Args:
        num_clips: Training clips, spread evenly over the ten classes.
        num_held_out: Held-out clips, likewise.
        size: Side of the square frame in pixels, even (4:2:0 chroma), at least 16.
        num_frames: Frames of a clip.
        digit_size: Side of the box of a single digit in pixels, at most ``size``.
        seed: Chooses the held-out scans, and the digits and paths of every clip.
        vary: Rotate, slant, scale and thicken the scans of every clip at random, those of held-out clips too, and
            keep two digits of one clip apart. The scans of a clip are the same with and without it.

    >>> Recipe().num_clips + Recipe().num_held_out
    2400
    """

    num_clips: int = 2000
    num_held_out: int = 400
    size: int = 32
    num_frames: int = 16
    digit_size: int = 24
    seed: int = 0
    vary: bool = False


def _check(recipe: Recipe) -> None:
    if recipe.size % 2 or recipe.size < 16:
        raise ValueError(f"got --size {recipe.size}; expected an even number >= 16; try --size 32")
    if not 8 <= recipe.digit_size <= recipe.size:
        raise ValueError(
            f"got --digit-size {recipe.digit_size}; expected 8 to --size {recipe.size}; change one of them"
        )
    if recipe.num_frames < 1 or recipe.num_clips < 0 or recipe.num_held_out < 0 or recipe.seed < 0:
        raise ValueError(f"got {recipe}; expected at least 1 frame and no negative number; correct that flag")


def split_scans(seed: int) -> dict[str, list[np.ndarray]]:
    """Return for each split ten arrays of scans, each (scans, 8, 8) float32 in [0, 1]; the seed parts them.

    >>> [len(classes[0]) for classes in split_scans(seed=0).values()]
    [142, 36]
    """
    from sklearn.datasets import load_digits  # slow to import, and workers do not need it

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8).astype(np.float32) / 16
    rng = np.random.default_rng(seed)
    splits: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for label in range(NUM_CLASSES):
        scans = rng.permutation(images[labels == label])
        num_held_out = round(HELD_OUT_SCANS * len(scans))
        splits["train"].append(scans[num_held_out:])
        splits["held_out"].append(scans[:num_held_out])
    return splits


def enlarge(scan: np.ndarray, digit_size: int) -> np.ndarray:
    """Enlarge a scan, (8, 8) in [0, 1], smoothly; then stretch its contrast: white, crisp, connected strokes.

    >>> enlarge(np.eye(8, dtype=np.float32), 20).shape
    (20, 20)
    """
    image = Image.fromarray(scan.astype(np.float32)).resize((digit_size, digit_size), Image.Resampling.BICUBIC)
    ramp = np.clip((np.asarray(image) - 0.3) / 0.5, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def bend(scan: np.ndarray, recipe: Recipe, *, side: int, rng: np.random.Generator) -> np.ndarray:
    """Enlarge a scan as ``enlarge`` does, but rotated, slanted, scaled and thickened at random; cut away what is black.

    Args:
        scan: (8, 8) in [0, 1].
        recipe: Its frame bounds the digit.
        side: Side of the box of an unscaled digit in pixels.
        rng: Draws the four numbers.

    Returns:
        The digit, (rows, columns) in [0, 1], each at most ``recipe.size``.

    >>> bend(np.eye(8, dtype=np.float32), Recipe(), side=20, rng=np.random.default_rng(0)).shape
    (20, 20)
    """
    angle = np.deg2rad(rng.uniform(*ROTATIONS))
    shear = rng.uniform(*SHEARS)
    scale = rng.uniform(*SCALES)
    ramp_start = rng.uniform(*THICKNESSES)
    # PIL maps a pixel (x, y) of the result to a place in the scan. A border of one black pixel rounds stroke ends.
    cell = FINE * side * scale / 8  # fine pixels per pixel of the scan
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    inverse = np.array([[1, shear], [0, 1]]) @ rotation / cell
    offset = 5 - inverse @ np.full(2, FINE * recipe.size / 2)  # centre to centre; the padded scan is 10 x 10
    image = Image.fromarray(np.pad(scan, 1).astype(np.float32))
    coefficients = np.column_stack([inverse, offset]).ravel().tolist()
    fine_size = (FINE * recipe.size, FINE * recipe.size)
    fine = image.transform(fine_size, Image.Transform.AFFINE, coefficients, resample=Image.Resampling.BICUBIC)
    ramp = np.clip((np.asarray(fine) - ramp_start) / 0.4, 0, 1)
    smooth = ramp * ramp * (3 - 2 * ramp)
    digit = smooth.reshape(recipe.size, FINE, recipe.size, FINE).mean((1, 3))
    rows = np.flatnonzero(digit.max(1) > 0.02)
    columns = np.flatnonzero(digit.max(0) > 0.02)
    return digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def bounce(start: np.ndarray, velocity: np.ndarray, *, num_frames: int, room: np.ndarray | float) -> np.ndarray:
    """Follow a point that moves at constant speed and is reflected at 0 and at ``room``.

    Args:
        start: First position, (2,), each in [0, room].
        velocity: Pixels per frame, (2,).
        num_frames: Number of positions.
        room: Length of the way between the walls in pixels, one or (2,); 0 pins the point.

    >>> bounce(np.array([0.0, 9.0]), np.array([1.0, 2.0]), num_frames=3, room=10.0).tolist()
    [[0.0, 9.0], [1.0, 9.0], [2.0, 7.0]]
    """
    path = start + velocity * np.arange(num_frames)[:, None]
    way = np.maximum(room, 1e-9)  # a remainder by 0 is not a number
    return np.where(np.greater(room, 0), way - np.abs(path % (2 * way) - way), 0.0)


def place(digit: np.ndarray, position: np.ndarray, size: int) -> np.ndarray:
    """Draw a digit at a sub-pixel position on a black square frame (bilinear).

    Args:
        digit: (rows, columns) in [0, 1].
        position: (row, column) of its top left corner, each in [0, size - side of the digit].
        size: Side of the frame in pixels.

    >>> place(np.ones((1, 1)), np.array([0.0, 0.25]), 2).tolist()
    [[0.75, 0.25], [0.0, 0.0]]
    """
    height, width = digit.shape
    row, column = np.floor(position).astype(int)
    down, right = position - (row, column)
    frame = np.zeros((size + 1, size + 1), np.float32)
    for i, j in product((0, 1), (0, 1)):
        weight = abs(1 - i - down) * abs(1 - j - right)
        frame[row + i : row + i + height, column + j : column + j + width] += weight * digit
    return frame[:size, :size]


def _move(scan: np.ndarray, recipe: Recipe, *, side: int, rng: np.random.Generator) -> np.ndarray:
    """Draw one digit on a random path: (num_frames, size, size) in [0, 1]."""
    angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(*SPEEDS)
    velocity = speed * np.array([np.sin(angle), np.cos(angle)])
    digit = bend(scan, recipe, side=side, rng=rng) if recipe.vary else enlarge(scan, side)
    room = np.subtract(recipe.size, digit.shape).astype(float)
    path = bounce(rng.uniform(0, room, 2), velocity, num_frames=recipe.num_frames, room=room)
    return np.stack([place(digit, position, recipe.size) for position in path])


def _overlap(digits: list[np.ndarray]) -> float:
    """Return the largest share, over frames, of the ink of two digits that both put on the same pixels; 0 for one."""
    if len(digits) == 1:
        return 0.0
    shared = np.min(digits, axis=0).sum(axis=(1, 2))
    ink = np.min([digit.sum(axis=(1, 2)) for digit in digits], axis=0)
    return float((shared / ink).max())


def render_clip(scans: list[np.ndarray], recipe: Recipe, *, split: str, index: int) -> np.ndarray:
    """Draw one clip; everything random depends on (seed, split, index) only.

    Args:
        scans: Ten arrays of scans of this split, as ``split_scans`` gives them.
        recipe: The recipe.
        split: "train" or "held_out".
        index: Number of the clip in its split; the last decimal is its class.

    Returns:
        Grey frames, (num_frames, size, size) uint8.

    >>> render_clip(split_scans(0)["train"], Recipe(), split="train", index=3).shape
    (16, 32, 32)
    """
    rng = np.random.default_rng([recipe.seed, SPLITS.index(split), index])
    num_digits = 2 if rng.random() < PAIRS else 1
    side = recipe.digit_size if num_digits == 1 else max(8, round(PAIR_SCALE * recipe.digit_size))
    chosen = rng.choice(scans[index % NUM_CLASSES], num_digits, replace=False)
    for _ in range(TRIES if recipe.vary else 1):
        digits = [_move(scan, recipe, side=side, rng=rng) for scan in chosen]
        if _overlap(digits) <= MOST_OVERLAP:
            break
    return np.round(np.max(digits, axis=0) * 255).astype(np.uint8)


def encode(video: np.ndarray, path: Path) -> None:
    """Write grey frames (t, h, w) uint8 as an H.264 mp4 with one key frame; the same frames give the same bytes.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "black.mp4"
    >>> encode(np.zeros((2, 32, 32), np.uint8), path)
    >>> 500 < path.stat().st_size < 5000
    True
    """
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=FPS, options=X264)
        stream.height, stream.width = video.shape[1:]
        stream.pix_fmt, stream.gop_size = "yuv420p", len(video)
        stream.codec_context.thread_count = 1
        for image in video:
            frame = av.VideoFrame.from_ndarray(np.repeat(image[..., None], 3, axis=2), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _write_clip(task: tuple[str, int], *, splits: dict[str, list[np.ndarray]], recipe: Recipe, folder: Path) -> None:
    split, index = task
    video = render_clip(splits[split], recipe, split=split, index=index)
    encode(video, folder / split / str(index % NUM_CLASSES) / f"{index:05d}.mp4")


def _write_all(folder: Path, recipe: Recipe, *, workers: int) -> None:
    for split, label in product(SPLITS, range(NUM_CLASSES)):
        (folder / split / str(label)).mkdir(parents=True)
    tasks = [(split, index) for split, number in zip(SPLITS, recipe[:2], strict=True) for index in range(number)]
    write = partial(_write_clip, splits=split_scans(recipe.seed), recipe=recipe, folder=folder)
    show = partial(track, description="moving digits", total=len(tasks), console=Console(stderr=True))
    if workers <= 1:
        deque(show(map(write, tasks)), maxlen=0)
    else:
        with multiprocessing.Pool(workers) as pool:
            deque(show(pool.imap_unordered(write, tasks, chunksize=20)), maxlen=0)
    (folder / "recipe.json").write_text(json.dumps(_note(recipe), indent=2) + "\n")


def _note(recipe: Recipe) -> dict[str, int]:
    note = {"version": VERSION, **recipe._asdict()}
    if not recipe.vary:
        del note["vary"]  # folders made before there was this field are the same to the byte
    return note


def _is_made(output: Path, recipe: Recipe, *, overwrite: bool) -> bool:
    """Say whether ``output`` already holds this recipe; raise ``FileExistsError`` if it must not be replaced."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    note = output / "recipe.json"
    if not note.is_file():
        raise FileExistsError(f"got {output}, not made by this script; expected a new folder; choose another --output")
    found, wanted = json.loads(note.read_text()), _note(recipe)
    if found != wanted and not overwrite:
        names = [*wanted, *(found.keys() - wanted)]
        differ = ", ".join(f"{name} {found.get(name)}" for name in names if found.get(name) != wanted.get(name))
        raise FileExistsError(
            f"got other arguments than those that made {output} (there: {differ}); expected the same ones; "
            f"choose another --output, or pass --overwrite to replace the folder"
        )
    return found == wanted


def make(output: Path, recipe: Recipe, *, workers: int = 1, overwrite: bool = False) -> bool:
    """Make the data set, whole or not at all: clips go to a sibling folder that is renamed at the end.

    Returns False when the folder already holds this recipe and nothing was done.

    Args:
        output: The folder to make.
        recipe: What to make.
        workers: Processes; they change the time, not the bytes.
        overwrite: Replace a folder that this script made with other arguments.

    Raises:
        ValueError: If the recipe cannot be made.
        FileExistsError: If the folder holds something else.

    >>> import tempfile
    >>> output = Path(tempfile.mkdtemp()) / "digits"
    >>> recipe = Recipe(num_clips=10, num_held_out=10, num_frames=2)
    >>> make(output, recipe), make(output, recipe), len(list(output.rglob("*.mp4")))
    (True, False, 20)
    """
    _check(recipe)
    if _is_made(output, recipe, overwrite=overwrite):
        return False
    new = output.with_name(f".{output.name}.new-{os.getpid()}")
    old = output.with_name(f".{output.name}.old-{os.getpid()}")
    try:
        _write_all(new, recipe, workers=workers)
        if output.exists():
            output.rename(old)
        new.rename(output)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return True


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status.

    >>> import tempfile
    >>> main(["--output", tempfile.mkdtemp(), "--num-clips", "0", "--num-held-out", "0", "--workers", "1"])
    0
    """
    show_defaults = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=show_defaults)
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).resolve().parent / "moving_digits", help="folder to make"
    )
    for name, default in list(Recipe()._asdict().items())[:-1]:
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=default, help=name.replace("_", " "))
    parser.add_argument("--vary", action="store_true", help="rotate, slant, scale and thicken every digit at random")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder made with other arguments")
    options = parser.parse_args(arguments)
    recipe = Recipe(**{name: getattr(options, name) for name in Recipe._fields})
    try:
        made = make(options.output, recipe, workers=options.workers, overwrite=options.overwrite)
    except (ValueError, FileExistsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.output}: {'made' if made else 'already made with these arguments'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
