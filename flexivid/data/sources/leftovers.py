"""Count the files beside the videos that are not used, and report them in sentences with a few names.

Standard library only.
"""

import re
from collections import Counter

from flexivid.runtime.printable import printable

NUM_EXAMPLES = 3
ARCHIVES = ("zip", "tar", "tgz", "gz", "bz2", "xz", "rar", "7z", "zst")
OTHER_VIDEOS = (  # no container, or one that only its maker's programs read
    *("mod", "tod", "yuv", "swf", "braw", "r3d", "lrv", "360", "dav", "bik", "part", "crdownload"),
)
LISTS = ("csv", "tsv", "jsonl", "ndjson", "parquet")
SENTENCES = {  # {for one|for more}
    "text": "{text that is|texts that are} the caption of no video; name a text as its video: walk.txt beside walk.mp4",
    "list": "{list|lists} beside the videos, which {is|are} not read; name {it|one} instead of the folder, or call it"
    " metadata.csv",
    "archive": "{archive, which is|archives, which are} not looked into; unpack {it|them}, or name the tars themselves,"
    " as folder/*.tar",
    "video": "{file that seems to be a video|files that seem to be videos} of a kind that is not read; convert"
    " {it|them}",
    "pictures": "{folder|folders} of numbered pictures beside the video files, which {is|are} left out; move {it|them}"
    " into a folder of {its|their} own to train on {it|them}",
    "unreadable": "{folder|folders} that cannot be read, which {is|are} left out; change {its|their} permissions",
    "encoding": "{name that is|names that are} not UTF-8, which {is|are} left out; rename the {file|files}, for example"
    " with convmv",
    "sample": "{sample|samples} of tars without a video, which {is|are} left out; give a sample and its video one name",
    "apart": "{text of a tar that does not follow its video|texts of tars that do not follow their videos}, which"
    " {is|are} left out; write the tar anew with the files of a sample one after the other",
    "second": "{video of a tar|videos of tars} beside another one of {its|their} sample, which {is|are} left out; give"
    " each a name of its own",
    "link": "{link to a folder that is|links to folders that are} read under another name, which {is|are} left out;"
    " remove the {link|links}",
}
NOT_CAPTIONS = ("readme", "license", "licence", "classind", "requirements", "trainlist", "testlist")  # beginnings


class LeftOutWarning(UserWarning):
    """Files beside the videos are not used."""


class Leftovers:
    """Counts files that are not used, by kind.

    >>> leftovers = Leftovers()
    >>> leftovers.add_file("v", "b.zip")
    >>> leftovers.notes("v")
    ('got 1 archive, which is not looked into; unpack it, or name the tars themselves, as folder/*.tar (below v: \
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
            f"got {count} {_numbered(SENTENCES[kind], count)} (below {root}: {self._examples(kind, root)})"
            for kind, count in self._counts.items()
            if kind not in without
        )

    def _examples(self, kind: str, root: str) -> str:
        names = [printable(path.removeprefix(f"{root}/")) for path in self._kinds[kind]]
        return ", ".join(names) + ", ..." * (self._counts[kind] > len(names))


def _numbered(sentence: str, count: int) -> str:
    """Choose between the singular and the plural, written ``{file|files}``."""
    return re.sub(r"\{(.*?)\|(.*?)\}", r"\1" if count == 1 else r"\2", sentence)
