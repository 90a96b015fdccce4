"""Fetch a large file over an unreliable connection: resumed, checked, and in place only when it is whole.

What has arrived is kept in ``<file>.part``, and the server's name for that version in ``<file>.part.tag``: if the file
has changed meanwhile, it starts again. Standard library only, and rich for the bar.
"""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

BLOCK = 1 << 20
TIMEOUT_SECONDS = 30.0
RETRIED = (408, 425, 429, 500, 502, 503, 504)


class DownloadError(RuntimeError):
    """A file that cannot be had, and what to do about it.

    >>> str(DownloadError("got no answer"))
    'got no answer'
    """


class Wanted(NamedTuple):
    """What to fetch, and how to know it.

    Args:
        url: Its address: http, https or file.
        path: Where it is to lie.
        checksum: ``sha256:<hex>`` or ``md5:<hex>``; empty: any content will do.

    >>> Wanted("https://host/films.zip", Path("films.zip")).part
    PosixPath('films.zip.part')
    """

    url: str
    path: Path
    checksum: str = ""

    @property
    def part(self) -> Path:
        """Where it grows."""
        return self.path.with_name(self.path.name + ".part")

    @property
    def tag(self) -> Path:
        """Where the server's name for this version of it is kept."""
        return self.path.with_name(self.path.name + ".part.tag")


def download(
    url: str,
    path: str | os.PathLike[str],
    *,
    checksum: str = "",
    attempts: int = 6,
    pause_seconds: float = 1.0,
    progress: bool = True,
) -> bool:
    """Fetch a file, unless it is there.

    Args:
        url: Its address.
        path: Where it is to lie; folders are made.
        checksum: ``sha256:<hex>`` or ``md5:<hex>``; empty: not checked.
        attempts: Tries in a row that bring nothing before giving up.
        pause_seconds: Before the second try; doubled for each one after it.
        progress: Show a progress bar.

    Returns:
        Whether anything had to be fetched.

    Raises:
        DownloadError: If it cannot be had, or is not what was expected.
        ValueError: If the checksum is not written as above.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "a").write_bytes(b"content")
    >>> download((folder / "a").as_uri(), folder / "b", progress=False), (folder / "b").read_bytes()
    (True, b'content')
    """
    wanted = Wanted(url, Path(path), checksum)
    _algorithm(checksum)
    if wanted.path.exists():
        _verify(wanted, wanted.path)
        return False
    wanted.path.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        before = _size(wanted.part)
        try:
            _fetch(wanted, progress)
            break
        except (OSError, http.client.HTTPException) as error:
            failures = 1 if _size(wanted.part) > before else failures + 1
            if not _may_pass(error) or failures >= attempts:
                raise DownloadError(_explain(wanted, error)) from error
        time.sleep(pause_seconds * 2 ** (failures - 1))
    _verify(wanted, wanted.part)
    wanted.tag.unlink(missing_ok=True)
    os.replace(wanted.part, wanted.path)
    return True


def digest(path: str | os.PathLike[str], algorithm: str = "sha256") -> str:
    """Return the checksum of a file, as hexadecimal digits.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/a"
    >>> _ = open(path, "wb").write(b"content")
    >>> digest(path, "md5")
    '9a0364b9e99bb480dd25e1f0284c8555'
    """
    state = hashlib.new(algorithm)
    with open(path, "rb") as stream:
        while block := stream.read(BLOCK):
            state.update(block)
    return state.hexdigest()


def _fetch(wanted: Wanted, progress: bool) -> None:
    """Add to the part until it is whole; raise ``OSError`` if the connection ends before."""
    have = _size(wanted.part)
    tag = wanted.tag.read_text() if have and wanted.tag.exists() else ""
    request = urllib.request.Request(wanted.url, headers={"User-Agent": "flexivid"})
    if have and (tag or wanted.checksum):  # otherwise nothing says that the rest belongs to the same version
        request.add_header("Range", f"bytes={have}-")
        if tag:
            request.add_header("If-Range", tag)
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the part is whole, or longer than the file
            if error.headers.get("Content-Range", "").endswith(f"/{have}"):
                return
            wanted.part.unlink()
            raise OSError("what was fetched before does not fit the file") from error
        raise
    with answer:
        _refuse_page(wanted, answer)
        if answer.status != 206:
            have = 0
        wanted.tag.write_text(_tag(answer))
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        _copy(answer, wanted.part, have=have, total=total, name=wanted.path.name if progress else "")
    if total is not None and _size(wanted.part) != total:
        raise OSError(f"the connection ended after {_size(wanted.part)} of {total} bytes")


def _copy(answer: Any, part: Path, *, have: int, total: int | None, name: str) -> None:
    from flexivid.runtime.console import progress_bars

    with open(part, "r+b" if have else "wb") as stream, progress_bars("bytes", hidden=not name) as progress:
        stream.seek(have)
        task = progress.add_task(name, total=total, completed=have)
        while block := answer.read1(BLOCK) if hasattr(answer, "read1") else answer.read(BLOCK):
            stream.write(block)
            progress.advance(task, len(block))


def _tag(answer: Any) -> str:
    tag = answer.headers.get("ETag") or ""
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified") or ""


def _refuse_page(wanted: Wanted, answer: Any) -> None:
    if answer.headers.get_content_type() == "text/html" and wanted.path.suffix not in (".html", ".htm"):
        raise DownloadError(
            f"got a web page from {wanted.url}; expected a file; open the address in a browser, "
            f"save the file as {wanted.path}, and start again"
        )


def _may_pass(error: Exception) -> bool:
    return not isinstance(error, urllib.error.HTTPError) or error.code in RETRIED


def _explain(wanted: Wanted, error: Exception) -> str:
    by_hand = f"or fetch it elsewhere, save it as {wanted.path}, and start again"
    if isinstance(error, urllib.error.HTTPError):
        return (
            f"got status {error.code} ({error.reason}) from {wanted.url}; expected a file; correct the url, {by_hand}"
        )
    reason = getattr(error, "reason", None) or error
    kept = f" ({_size(wanted.part)} bytes are kept)" if _size(wanted.part) else ""
    return f"got no whole answer from {wanted.url}: {reason}{kept}; expected a connection; start again later, {by_hand}"


def _verify(wanted: Wanted, file: Path) -> None:
    algorithm, expected = _algorithm(wanted.checksum)
    if not algorithm:
        return
    found = digest(file, algorithm)
    if found != expected:
        if file == wanted.part:
            file.unlink()  # to resume it would keep the damage
            wanted.tag.unlink(missing_ok=True)
        raise DownloadError(
            f"got {wanted.path} from {wanted.url} with {algorithm} {found}; expected {expected}; "
            f"{'start again' if file == wanted.part else 'remove the file'}, or correct the checksum"
        )


def _algorithm(checksum: str) -> tuple[str, str]:
    algorithm, _, digits = checksum.partition(":")
    lengths = {"sha256": 64, "md5": 32}
    if checksum and (algorithm not in lengths or len(digits) != lengths[algorithm]):
        raise ValueError(f"got checksum {checksum}; expected sha256:<64 digits> or md5:<32 digits>; correct it")
    return algorithm, digits.lower()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
