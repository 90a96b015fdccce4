"""Unpack a zip, tar or rar, completely or not at all, and never outside its folder.

The first bytes decide the kind, not the name. Archives that would fill the disk are refused, and so are bombs: a few
bytes that claim to hold gigabytes. Standard library only; rar needs an external program.
"""

import os
import shutil
import stat
import subprocess
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from flexivid.runtime.console import track
from flexivid.runtime.files import atomic_write
from flexivid.runtime.paths import is_hidden

RAR_PROGRAMS = {  # program -> its arguments
    "unrar": ("x", "-o+", "-idq", "{archive}", "{folder}/"),
    "bsdtar": ("-xf", "{archive}", "-C", "{folder}"),
    "7z": ("x", "-y", "-bd", "-o{folder}", "{archive}"),
    "7zz": ("x", "-y", "-bd", "-o{folder}", "{archive}"),
}

MAX_FILES = 10_000_000
FREE_BYTES = 1 << 30  # left on the disk
BOMB_BYTES, BOMB_RATIO = 1 << 30, 200  # archives with more content than this, of so much times their own size


def archive_kind(path: str | os.PathLike[str]) -> str:
    """Return "zip", "tar" or "rar" by the first bytes of a file; ``ValueError`` if it is none of these."""
    with open(path, "rb") as stream:
        head = stream.read(8)
    if head.startswith(b"Rar!"):
        return "rar"
    if zipfile.is_zipfile(path):
        return "zip"
    if tarfile.is_tarfile(path):
        return "tar"
    raise ValueError(f"got {path}, which begins with {head!r}; expected a zip, tar or rar; remove and fetch it again")


def extract(path: str | os.PathLike[str], folder: str | os.PathLike[str], *, progress: bool = True) -> bool:
    """Unpack an archive into a new folder, which appears once everything is in it; return False if it exists already.

    ``ValueError`` if the archive is damaged, would write outside the folder, or holds more than there is room for;
    ``FileNotFoundError`` if it is a rar and no program can unpack it.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/films.zip"
    >>> with zipfile.ZipFile(path, "w") as archive:
    ...     archive.writestr("waves/1.txt", "a")
    >>> extract(path, path + ".d", progress=False), os.listdir(path + ".d/waves")
    (True, ['1.txt'])
    """
    target = Path(folder)
    if target.exists():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write(target) as new:
            new.mkdir()
            {"zip": _unzip, "tar": _untar, "rar": _unrar}[archive_kind(path)](Path(path), new, progress)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, RuntimeError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"got {path}: {error}; expected a whole archive; remove and fetch it again") from error
    return True


def _unzip(path: Path, folder: Path, progress: bool) -> None:
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not is_hidden(member.filename)]
        room = _Room(path, folder)
        for member in archive.infolist():
            _check_name(path, member.filename, is_link=stat.S_ISLNK(member.external_attr >> 16))
        for member in members:
            room.take(member.file_size)
        for member in track(members, "unpacking", unit="files", hidden=not progress):
            archive.extract(member, folder)


def _untar(path: Path, folder: Path, progress: bool) -> None:
    room = _Room(path, folder)
    with tarfile.open(path) as archive:
        for member in track(archive, "unpacking", unit="files", hidden=not progress):
            _check_name(path, member.name, is_link=not (member.isfile() or member.isdir()))
            if is_hidden(member.name):
                continue
            room.take(member.size)
            archive.extract(member, folder, set_attrs=False)


def _unrar(path: Path, folder: Path, progress: bool) -> None:
    program = next((name for name in RAR_PROGRAMS if shutil.which(name)), None)
    if program is None:
        raise FileNotFoundError(
            f"got {path}, a rar, and no program that unpacks it; expected one of {', '.join(RAR_PROGRAMS)}; "
            f"install one, for example with: apt-get install libarchive-tools"
        )
    arguments = [part.format(archive=path.resolve(), folder=folder.resolve()) for part in RAR_PROGRAMS[program]]
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{program} fails: {(done.stderr or done.stdout).strip()[-300:]}")
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if os.path.islink(os.path.join(parent, name)):
                _check_name(path, name, is_link=True)


class _Room:
    """Adds up the sizes that an archive states; zip and tar never unpack more."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._path, self._packed = path, path.stat().st_size
        self._free = shutil.disk_usage(folder).free - FREE_BYTES
        self._num_files = self._num_bytes = 0

    def take(self, num_bytes: int) -> None:
        """Count a member; refuse the archive where that is too much."""
        self._num_files += 1
        self._num_bytes += num_bytes
        state = ""
        if self._num_files > MAX_FILES:
            state = f"more than {MAX_FILES} files"
        elif self._num_bytes > max(BOMB_BYTES, BOMB_RATIO * self._packed):
            state = f"{self._num_bytes} bytes or more, {self._num_bytes // max(1, self._packed)} times its own size"
        if state:
            raise ValueError(
                f"got {self._path} with {state}; expected videos; do not trust this archive, fetch another"
            )
        if self._num_bytes > self._free:
            raise ValueError(
                f"got {self._path} with {self._num_bytes / 2**30:.1f} GiB or more; expected at most"
                f" {max(0, self._free) / 2**30:.1f}, which is free on the disk; make room, or take another --output"
            )


def _check_name(path: Path, name: str, *, is_link: bool) -> None:
    """Refuse names that lead outside the folder, and all links, before anything is written."""
    parts = PurePosixPath(name.replace("\\", "/"))
    if is_link or parts.is_absolute() or ".." in parts.parts or ":" in (parts.parts or ("",))[0]:
        raise ValueError(
            f"got {name!r} in {path}; expected plain files below one folder; do not trust this archive, fetch another"
        )
