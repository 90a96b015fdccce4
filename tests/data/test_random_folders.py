"""Random collections of folders, written from a model of what they mean, are read back as what they mean, or refused.

The model is a list of videos, each with its part, class and caption; how it is spelt on disk is drawn as well: names of
parts, letter case, unicode forms, endings, side-cars or ``metadata.csv``, and files of other programs in between.
"""

import csv
import re
import tempfile
import unicodedata
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest

from flexivid.data.lists.classes import SPLITS, TRAIN, resembles_split
from flexivid.data.sources.layout import Collection
from flexivid.data.sources.manifest import read_manifests
from flexivid.runtime.paths import is_hidden

from .listed import items

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

WORDS = st.text("abc XYZ \u00e9\u65e5.,\"'\t#$", min_size=1, max_size=12).map(str.strip).filter(bool)
STEMS = st.text("abXY 019\u00e9\u65e5_-#%[]{}:;$'&=~()!", min_size=1, max_size=6).filter(
    lambda name: name == name.strip() and not is_hidden(name) and resembles_split(name) is None
)
NUMBERS = st.integers(0, 120).flatmap(lambda number: st.sampled_from([str(number), f"{number:03}"]))
FORMS = st.sampled_from(["NFC", "NFD"])
ENDINGS = st.sampled_from(["mp4", "MOV", "mts", "y4m", "WebM", "3GP"])
CASES = st.sampled_from([str.lower, str.upper, str.title, lambda name: name.replace("_", "-")])
NOISE = ["._a.mp4", ".DS_Store", "__MACOSX/a.mp4", "@eaDir/a.mp4", "Thumbs.db", ".cache/a.mp4", "a.md", "a.json"]


class Video(NamedTuple):
    """One video of the model: where it is, and what it means."""

    part: str  # "train", "held_out", or "" where there are no parts
    folder: str  # below the part
    name: str
    label: str | None
    caption: str | None


class Model(NamedTuple):
    videos: tuple[Video, ...]
    folders: dict[str, str]  # what the parts are called
    layout: str
    text: str  # where captions are: an ending, or "metadata"
    noise: tuple[str, ...]


def plain(name):
    """What names may not share in a folder: case and unicode form apart, they are the same for some systems."""
    return unicodedata.normalize("NFC", name).casefold()


@st.composite
def videos_in(draw, part, folder, label):
    stems = draw(st.lists(STEMS, min_size=1, max_size=3, unique_by=plain))
    form, ending = draw(FORMS), draw(ENDINGS)
    return [
        Video(part, folder, f"{unicodedata.normalize(form, stem)}.{ending}", label, draw(st.none() | WORDS))
        for stem in stems
    ]


@st.composite
def models(draw, *, trap=False):
    has_parts = not trap and draw(st.booleans())
    parts = {"": ""}
    if has_parts:
        held_out = draw(st.sampled_from([name for names in SPLITS.values() for name in names]))
        parts = {"train": draw(CASES)(draw(st.sampled_from(TRAIN))), "held_out": draw(CASES)(held_out)}
    kind = draw(st.sampled_from([STEMS, NUMBERS]))
    classes = draw(st.lists(kind, min_size=2, max_size=3, unique_by=plain)) if trap or draw(st.booleans()) else []
    classes += [draw(CASES)(draw(st.sampled_from(TRAIN)))] * trap
    depth = draw(st.lists(STEMS, max_size=2, unique_by=plain))
    videos = []
    for part in parts:
        folders = [unicodedata.normalize(draw(FORMS), name) for name in classes] or ["/".join(depth)]
        for name, folder in zip(classes or [None], folders, strict=True):
            videos += draw(videos_in(part, folder, name and unicodedata.normalize("NFC", name)))
    flat = not has_parts and not classes
    layout = draw(st.sampled_from(["auto", "splits" if has_parts else "classes" if classes else "flat"]))
    text = draw(st.sampled_from([".txt", ".TXT", ".caption", "metadata"]))
    noise = tuple(draw(st.lists(st.sampled_from(NOISE), max_size=3, unique=True)))
    return Model(tuple(videos), parts, "flat" if flat and trap else layout, text, noise)


def path_of(model, video):
    return "/".join(filter(None, (model.folders[video.part], video.folder, video.name)))


def write(model, root, form):
    """Put files where the model has them; texts may be in another unicode form than their videos."""
    for video in model.videos:
        file = root / path_of(model, video)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        for noise in model.noise:
            (file.parent / noise).parent.mkdir(exist_ok=True)
            (file.parent / noise).touch()
        if video.caption is not None and model.text != "metadata":
            stem = unicodedata.normalize(form, video.name.rpartition(".")[0])
            (file.parent / (stem + model.text)).write_text(video.caption, encoding="utf-8")
    if model.text == "metadata":
        with open(root / "metadata.csv", "w", newline="", encoding="utf-8") as stream:
            rows = [(f"./{path_of(model, video)}", video.caption) for video in model.videos]
            csv.writer(stream).writerows([("file_name", "text"), *rows])


def meant(model, *, labelled=True):
    """Path -> (class, caption) of each part, as the model has it; where all classes are numbers, ``007`` is class 7."""
    parts = {}
    numbers = all(re.fullmatch("-1|[0-9]+", video.label or "") for video in model.videos)
    for video in model.videos:
        label = video.label if labelled else None
        label = {"-1": None}.get(label, str(int(label))) if labelled and numbers else label
        caption = video.caption or ("" if label is None or label.isdecimal() else label)
        parts.setdefault(video.part or "train", {})[path_of(model, video)] = (label, caption)
    return [parts["train"], parts.get("held_out")]


def found(root, layout):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train, held_out, _ = read_manifests(Collection(str(root), layout))
    names = dict(enumerate(train.class_names))
    numbers = [str(label) for label in names]
    assert list(names.values()) in (sorted(names.values()), numbers)
    return [
        part and {str(row.path).split(f"{root}/")[1]: (names.get(row.label), row.caption) for row in items(part)}
        for part in (train, held_out)
    ]


def check(model, form):
    with tempfile.TemporaryDirectory() as folder:
        write(model, Path(folder), form)
        assert found(folder, model.layout) == meant(model)


def check_trap(model, form):
    with tempfile.TemporaryDirectory() as folder:
        write(model, Path(folder), form)
        with pytest.raises(ValueError, match=r"expected one of two readings.*data\.layout") as error:
            found(folder, "auto")
        assert folder in str(error.value)
        assert found(folder, "classes") == meant(model)
        assert found(folder, "flat") == meant(model, labelled=False)


def run(test, strategy, count):
    settings = hypothesis.settings(max_examples=count, deadline=None, derandomize=True, database=None)
    settings(hypothesis.given(strategy, FORMS)(test))()


def test_random_folders_mean_what_they_were_written_for():
    run(check, models(), 100)


def test_random_classes_with_a_name_of_a_part_are_refused():
    run(check_trap, models(trap=True), 40)


@pytest.mark.slow
def test_many_random_folders():
    run(check, models(), 600)
    run(check_trap, models(trap=True), 200)
