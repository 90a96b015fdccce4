"""What the parts of a data set are called, in the column of a list and as folders alike. Standard library only."""

import re

TRAIN = ("train", "training")
SPLITS = {  # of several parts that are held out, the first is used
    "held_out": ("held_out", "heldout", "hold_out", "holdout"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation"),
    "test": ("test", "testing"),
}
_MEANINGS = {name: "train" for name in TRAIN} | {name: part for part, names in SPLITS.items() for name in names}
_BESIDE = frozenset(("video", "videos", "clip", "clips", "frames", "rawframes", "set", "split", "data"))


def split_of(name: str) -> str | None:
    """Return "train", "held_out", "val" or "test" for any of their names, in any letter case; None for another word.

    >>> [split_of(name) for name in ("Training", "DEV", "held-out", "train station")]
    ['train', 'val', 'held_out', None]
    """
    return _MEANINGS.get(re.sub(r"[\s-]+", "_", name.strip()).lower())


def resembles_split(name: str) -> str | None:
    """Return which part a longer name seems to mean, as ``videos_train``, ``val-set`` and ``train_256``; None for none.

    >>> [resembles_split(name) for name in ("videos_train", "testset", "train_256", "test drive")]
    ['train', 'test', 'train', None]
    """
    joined = re.sub(r"(?<=[a-z])(set|split)$", r"_\1", re.sub(r"[\s.-]+", "_", name.strip()).lower())
    words = [word for word in re.split(r"_+|(?<=[a-z])(?=\d)", joined) if not word.isdecimal()]
    return split_of("_".join(word for word in words if word and word not in _BESIDE))
