"""Count the files beside the videos that are not used, and report them in sentences with a few names.

Standard library only.
"""

from collections import Counter

from flexivid.runtime.printable import printable

NUM_EXAMPLES = 3
ARCHIVES = ("zip", "tar", "tgz", "gz", "bz2", "xz", "rar", "7z", "zst")
OTHER_VIDEOS = (  # no container, or one that only its maker's programs read
    *("mod", "tod", "yuv", "swf", "braw", "r3d", "lrv", "360", "dav", "bik", "part", "crdownload"),
)
LISTS = ("csv", "tsv", "jsonl", "ndjson", "parquet")
SENTENCES = {
    "text": "texts that are the caption of no video; name a text as its video: walk.txt beside walk.mp4",
    "list": "lists beside the videos, which are not read; name one instead of the folder, or call it metadata.csv",
    "archive": "archives, which are not looked into; unpack them, or name the tars themselves, as folder/*.tar",
    "video": "files that seem to be videos of a kind that is not read; convert them",
    "pictures": "folders of numbered pictures beside the video files, which are left out; move them into a folder of"
    " their own to train on them",
    "unreadable": "folders that cannot be read, which are left out; change their permissions",
    "encoding": "names that are not UTF-8, which are left out; rename the files, for example with convmv",
    "sample": "samples of tars without a video, which are left out; give a sample and its video one name",
    "apart": "texts of tars that do not follow their videos, which are left out; write the tar anew with the files of a"
    " sample one after the other",
    "second": "videos of tars beside another one of their sample, which are left out; give each a name of its own",
    "link": "links to folders that are read under another name, which are left out; remove the links",
}
NOT_CAPTIONS = ("readme", "license", "licence", "classind", "requirements", "trainlist", "testlist")  # beginnings


class LeftOutWarning(UserWarning):
    """Files beside the videos are not used."""


class Leftovers:
    """Counts files that are not used, by kind.

    >>> leftovers = Leftovers()
    >>> leftovers.add_file("v", "b.zip")
    >>> leftovers.notes("v")
    ('got 1 archives, which are not looked into; unpack them, or name the tars themselves, as folder/*.tar (below v: \
b.zip)',)
    """

    def __init__(self) -> None:
        self.endings: Counter[str] = Counter()
        self._kinds: dict[str, list[str]] = {}
        self._counts: Counter[str] = Counter()

    @property
    def num_files(self) -> int:
        """Files that are no videos, captions of videos included."""
        return self.endings.total()

    def add_file(self, folder: str, name: str, *, is_caption: bool = False) -> None:
        """Count a file that is no video; ``is_caption`` if it is the caption of one."""
        stem, dot, ending = name.lower().rpartition(".")
        ending = ending if dot and stem else ""
        self.endings[ending] += 1
        if ending in ("txt", "caption"):
            kind = "" if is_caption or stem.startswith(NOT_CAPTIONS) else "text"
        else:
            endings = {"list": LISTS, "archive": ARCHIVES, "video": OTHER_VIDEOS}
            kind = next((kind for kind, some in endings.items() if ending in some), "")
        if kind:
            self.add(kind, f"{folder}/{name}")

    def add(self, kind: str, path: str) -> None:
        """Count a file or folder of one of the kinds in ``SENTENCES``."""
        self._counts[kind] += 1
        if len(some := self._kinds.setdefault(kind, [])) < NUM_EXAMPLES:
            some.append(path)

    def described(self) -> str:
        """Count the files by ending, the most frequent first."""
        most = self.endings.most_common(8)
        return ", ".join(f"{count} {'.' + ending if ending else 'without an ending'}" for ending, count in most)

    def notes(self, root: str, *, without: frozenset[str] = frozenset()) -> tuple[str, ...]:
        """Return a sentence for each kind, except those in ``without``, with names relative to ``root``."""
        return tuple(
            f"got {count} {SENTENCES[kind]} (below {root}: {self._examples(kind, root)})"
            for kind, count in self._counts.items()
            if kind not in without
        )

    def _examples(self, kind: str, root: str) -> str:
        names = [printable(path.removeprefix(f"{root}/")) for path in self._kinds[kind]]
        return ", ".join(names) + ", ..." * (self._counts[kind] > len(names))
