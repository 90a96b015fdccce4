"""Clips of digits whose class, movement and faults are known because they were drawn so.

Half of them are white on black as data/moving_digits.py draws them, whose functions are used here, but not its speeds:
a metric must not change with a data set. The others are tinted, on a plain or textured ground that may move. A fault
has a strength in [0, 1]; most clips have none or one. Videos are (frames, rows, columns, 3) float32 in [0, 1]. Used by
train_motion_features.py and bench_sensitivity.py.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from PIL import Image
from scipy.ndimage import gaussian_filter

_SCRIPT = Path(__file__).resolve().parents[1] / "data" / "moving_digits.py"
_SPEC = importlib.util.spec_from_file_location("moving_digits", _SCRIPT)
digits = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(digits)

FAULTS = ("noise", "blur", "shuffle", "drift", "mixture", "gaps", "freeze", "flicker")
LABELS = (*FAULTS, "speed_row", "speed_column", "moved_row", "moved_column", "red", "green", "blue", "contrast", "side")
PLAIN_SPEEDS, TINTED_SPEEDS = (0.5 / 32, 2 / 32), (0, 3 / 32)  # of the frame's side per frame
PAIRS, PAIR_SCALE = 0.15, 0.7  # the fraction of the clips that show two digits, and their size then
FAULTY = 0.6  # the fraction of the clips with faults


class Clip(NamedTuple):
    """A drawn clip and what is known of it.

    Args:
        video: (t, h, w, 3) float32 in [0, 1].
        classes: Share of each digit in the shape, (10,), sum 1.
        labels: One number for each of ``LABELS``.
    """

    video: np.ndarray
    classes: np.ndarray
    labels: np.ndarray


class Shape(NamedTuple):
    """A digit as it looks in each frame: images (t, side, side), shares of the classes (10,), ink lost in gaps."""

    images: np.ndarray
    classes: np.ndarray
    lost: float


def draw_faults(rng: Generator) -> dict[str, float]:
    """Draw which faults a clip has, and how strong: none for most, else one or two."""
    strengths = dict.fromkeys(FAULTS, 0.0)
    if rng.random() < FAULTY:
        for name in rng.choice(FAULTS, rng.integers(1, 3), replace=False):
            strengths[str(name)] = rng.random()
    return strengths


def draw_clip(
    scans: list[np.ndarray],
    rng: Generator,
    *,
    num_frames: int = 8,
    size: int = 32,
    plain: bool | None = None,
    faults: dict[str, float] | None = None,
) -> Clip:
    """Draw a clip.

    Args:
        scans: Ten arrays of scans, as ``digits.split_scans`` gives them.
        rng: Decides everything that is not given.
        num_frames: Frames.
        size: Rows and columns.
        plain: White on black in the data set's sizes; None: every second clip.
        faults: Strengths of the faults; None: drawn, see ``draw_faults``.
    """
    plain = rng.random() < 0.5 if plain is None else plain
    strengths = dict.fromkeys(FAULTS, 0.0) | (draw_faults(rng) if faults is None else faults)
    order = draw_order(num_frames, strengths, rng)
    label, num_digits = rng.integers(10), 2 if rng.random() < PAIRS else 1
    share = (0.75 if plain else rng.uniform(0.4, 0.9)) * (1 if num_digits == 1 else PAIR_SCALE)
    side = round(share * size)
    mask, paths, shapes = np.zeros((num_frames, size, size), np.float32), [], []
    for _ in range(num_digits):
        path = draw_path(num_frames, size=size, room=size - side, plain=plain, rng=rng)[order]
        shape = draw_shape(scans, label, side=side, num_frames=num_frames, strengths=strengths, rng=rng)
        images = shape.images[order] * (1 - strengths["flicker"] * rng.random((num_frames, 1, 1)))
        drawn = [digits.place(image, place, size) for image, place in zip(images, path, strict=True)]
        mask = np.maximum(mask, np.stack(drawn))
        paths.append(path / size)
        shapes.append(shape)
    video = degrade(mask[..., None].repeat(3, -1) if plain else tint(mask, rng), strengths, rng)
    return Clip(
        video, np.mean([s.classes for s in shapes], 0), describe(video, shapes, np.array(paths), order, strengths)
    )


def draw_order(num_frames: int, strengths: dict[str, float], rng: Generator) -> np.ndarray:
    """Return the frame to show at each time: held frames for a freeze, some of them permuted for a shuffle."""
    order = np.arange(num_frames)
    held = round(strengths["freeze"] * (num_frames - 1))
    first = rng.integers(held + 1)
    order = np.clip(order, first, first + num_frames - 1 - held)
    chosen = rng.choice(num_frames, round(strengths["shuffle"] * num_frames), replace=False)
    order[chosen] = order[rng.permutation(chosen)]
    return order


def draw_path(num_frames: int, *, size: int, room: int, plain: bool, rng: Generator) -> np.ndarray:
    """Return the places of a digit that bounces between the walls, (t, 2) in pixels."""
    angle, speed = rng.uniform(0, 2 * np.pi), size * rng.uniform(*(PLAIN_SPEEDS if plain else TINTED_SPEEDS))
    velocity = speed * np.array([np.sin(angle), np.cos(angle)])
    return digits.bounce(rng.uniform(0, room, 2), velocity, num_frames=num_frames, room=room)


def draw_shape(
    scans: list[np.ndarray], label: int, *, side: int, num_frames: int, strengths: dict[str, float], rng: Generator
) -> Shape:
    """Return a digit with ``gaps``, a ``mixture`` of two from the start or turning into another one (``drift``)."""
    other = rng.integers(10)
    start, end = rng.choice(scans[label]), rng.choice(scans[other])
    middle, length = rng.uniform(0.2, 0.8) * num_frames, rng.uniform(1, num_frames)
    ramp = np.clip((np.arange(num_frames) - middle) / length + 0.5, 0, 1)
    mixture = strengths["mixture"] / 2
    weights = mixture + (1 - mixture) * strengths["drift"] * ramp
    images = np.stack([digits.enlarge((1 - weight) * start + weight * end, side) for weight in weights])
    classes = np.zeros(10, np.float32)
    np.add.at(classes, [label, other], [1 - weights.mean(), weights.mean()])
    cut = images * draw_gaps(images.shape, strengths["gaps"], rng)
    return Shape(cut, classes, 1 - cut.sum() / max(images.sum(), 1e-3))


def draw_gaps(shape: tuple[int, ...], strength: float, rng: Generator) -> np.ndarray:
    """Return a mask (t, side, side), 0 along up to three straight lines; of all frames alike, or of each its own."""
    num_frames, side = shape[:2]
    mask = np.ones(shape, np.float32)
    own = num_frames if rng.random() < 0.5 else 1
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    for _ in range(int(np.ceil(3 * strength))):
        angle, offset = rng.uniform(0, np.pi, (own, 1, 1)), rng.uniform(-0.25, 0.25, (own, 1, 1))
        distance = np.abs(rows * np.sin(angle) + columns * np.cos(angle) - offset)
        mask = mask * np.clip((distance - 0.01 - 0.07 * strength) * side + 0.5, 0, 1)
    return mask


def draw_texture(num_frames: int, size: int, rng: Generator) -> np.ndarray:
    """Return smooth noise that moves in a straight line, (t, size, size) in about [-1, 1]."""
    cells = int(rng.choice([3, 6, 12, 24]))
    field = rng.standard_normal((cells, cells)).astype(np.float32)
    field = np.asarray(Image.fromarray(field).resize((2 * size, 2 * size), Image.Resampling.BICUBIC))
    path = draw_path(num_frames, size=size, room=size, plain=False, rng=rng).round().astype(int)
    return 0.5 * np.stack([field[row : row + size, column : column + size] for row, column in path])


def tint(mask: np.ndarray, rng: Generator) -> np.ndarray:
    """Draw a grey mask (t, h, w) in one colour on a ground of another one, each perhaps with a texture."""
    layers = []
    for _ in range(2):
        colour, texture = rng.random(3), rng.choice([0, 0, rng.random()])
        pattern = draw_texture(*mask.shape[:2], rng)[..., None] * rng.uniform(0.5, 1, 3)
        layers.append(np.clip(colour + texture * pattern, 0, 1))
    return layers[0] + mask[..., None] * (layers[1] - layers[0])


def degrade(video: np.ndarray, strengths: dict[str, float], rng: Generator) -> np.ndarray:
    """Blur by up to 1/16 of the side, then add noise of deviation 0.4 times the square of its strength."""
    if strengths["blur"]:
        sigma = strengths["blur"] * video.shape[1] / 16
        video = gaussian_filter(video, (0, sigma, sigma, 0))
    if strengths["noise"]:
        video = video + 0.4 * strengths["noise"] ** 2 * rng.standard_normal(video.shape)
    return np.clip(video, 0, 1).astype(np.float32)


def describe(
    video: np.ndarray, shapes: list[Shape], paths: np.ndarray, order: np.ndarray, strengths: dict[str, float]
) -> np.ndarray:
    """Return the labels of a clip, as measured on what was drawn, in the order of ``LABELS``."""
    measured = {
        "shuffle": np.mean(np.diff(order) < 0),
        "drift": np.mean([np.sqrt(np.mean((shape.images[0] - shape.images[-1]) ** 2)) for shape in shapes]),
        "gaps": np.mean([shape.lost for shape in shapes]),
        "freeze": np.mean(np.diff(order) == 0),
    }
    speed, moved = np.abs(np.diff(paths, axis=1)).mean((0, 1)), (paths[:, -1] - paths[:, 0]).mean(0)
    colour, contrast = video.mean((0, 1, 2)), video.std()
    side = shapes[0].images.shape[1] / video.shape[1]
    faults = [(strengths | measured)[name] for name in FAULTS]
    return np.array([*faults, *speed, *moved, *colour, contrast, side], np.float32)
