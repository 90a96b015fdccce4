"""Download a large file over an unreliable connection: resume it, check it, and move it into place when complete.

Partial downloads are kept in ``<file>.part``, and the server's tag of that version in ``<file>.part.tag``: if the file
has changed meanwhile, the download restarts. Standard library, and rich for the progress bar.
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
    """A download that failed, and what to do about it."""


class Target(NamedTuple):
    """A file to download, with the two files that are kept beside it until it is complete."""

    url: str  # http, https or file
    path: Path
    checksum: str = ""  # ``sha256:<hex>`` or ``md5:<hex>``; empty: not checked

    @property
    def part(self) -> Path:
        return self.path.with_name(self.path.name + ".part")

    @property
    def tag(self) -> Path:
        """File with the server's tag of this version."""
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
    """Download a file to ``path``, whose folder is made if need be; return False if the file exists already.

    The url is http, https or file, the checksum ``sha256:<hex>`` or ``md5:<hex>``; empty: not checked. It gives up
    after so many ``attempts`` in a row without any progress; the pause before the second one is doubled each time.
    ``DownloadError`` if it fails, or the checksum differs.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "a").write_bytes(b"content")
    >>> download((folder / "a").as_uri(), folder / "b", progress=False), (folder / "b").read_bytes()
    (True, b'content')
    """
    target = Target(url, Path(path), checksum)
    _algorithm(checksum)
    if target.path.exists():
        _verify(target, target.path)
        return False
    target.path.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        before = _size(target.part)
        try:
            _fetch(target, progress)
            break
        except (OSError, http.client.HTTPException) as error:
            failures = 1 if _size(target.part) > before else failures + 1
            is_final = isinstance(error, urllib.error.HTTPError) and error.code not in RETRIED
            if is_final or failures >= attempts:
                raise DownloadError(_explain(target, error)) from error
        time.sleep(pause_seconds * 2 ** (failures - 1))
    _verify(target, target.part)
    target.tag.unlink(missing_ok=True)
    os.replace(target.part, target.path)
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


def _fetch(target: Target, progress: bool) -> None:
    """Append to the partial download until it is complete; ``OSError`` if the connection ends before."""
    have = _size(target.part)
    tag = target.tag.read_text() if have and target.tag.exists() else ""
    request = urllib.request.Request(target.url, headers={"User-Agent": "flexivid"})
    if have and (tag or target.checksum):  # otherwise nothing says that the rest belongs to the same version
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
            target.part.unlink()
            raise OSError("what was fetched before does not fit the file") from error
        raise
    with answer:
        _refuse_page(target, answer)
        if answer.status != 206:
            have = 0
        target.tag.write_text(_tag(answer))
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        _copy(answer, target.part, have=have, total=total, name=target.path.name if progress else "")
    if total is not None and _size(target.part) != total:
        raise OSError(f"the connection ended after {_size(target.part)} of {total} bytes")


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


def _refuse_page(target: Target, answer: Any) -> None:
    if answer.headers.get_content_type() == "text/html" and target.path.suffix not in (".html", ".htm"):
        raise DownloadError(
            f"got a web page from {target.url}; expected a file; open the address in a browser, "
            f"save the file as {target.path}, and start again"
        )


def _explain(target: Target, error: Exception) -> str:
    by_hand = f"or fetch it elsewhere, save it as {target.path}, and start again"
    if isinstance(error, urllib.error.HTTPError):
        return (
            f"got status {error.code} ({error.reason}) from {target.url}; expected a file; correct the url, {by_hand}"
        )
    reason = getattr(error, "reason", None) or error
    remark = f" ({_size(target.part)} bytes are kept)" if _size(target.part) else ""
    state = f"got no complete answer from {target.url}: {reason}{remark}"
    return f"{state}; expected a connection; start again later, {by_hand}"


def _verify(target: Target, file: Path) -> None:
    algorithm, expected = _algorithm(target.checksum)
    if not algorithm:
        return
    actual = digest(file, algorithm)
    if actual != expected:
        if file == target.part:
            file.unlink()  # to resume it would keep the damage
            target.tag.unlink(missing_ok=True)
        raise DownloadError(
            f"got {target.path} from {target.url} with {algorithm} {actual}; expected {expected}; "
            f"{'start again' if file == target.part else 'remove the file'}, or correct the checksum"
        )


def _algorithm(checksum: str) -> tuple[str, str]:
    algorithm, _, digits = checksum.partition(":")
    lengths = {"sha256": 64, "md5": 32}
    if checksum and (algorithm not in lengths or len(digits) != lengths[algorithm]):
        raise ValueError(f"got checksum {checksum}; expected sha256:<64 digits> or md5:<32 digits>; correct it")
    return algorithm, digits.lower()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
