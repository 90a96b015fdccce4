"""Messages between the main process and decode processes: plain data behind fixed headers, never pickles.

A malicious file may take over a decode process and make it send anything. So replies are parsed: one that is too long,
malformed or does not fit its request is a ``MessageError``, and its process is killed. Frames need no description: the
main process knows which shape it requested, and where. The process still has the rights of the user. Imports numpy, and
PyAV through ``probe``.
"""

import json
import os
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from flexivid.data.decoding.facts import Facts
from flexivid.data.decoding.probe import Look
from flexivid.data.decoding.reader import ClipRequest

REQUEST = struct.Struct("<QQQ")  # bytes that follow; offset and size of the block for its result, or 0
REPLY = struct.Struct("<BQQ")  # kind; memory of the process; bytes that follow
HEAD = struct.Struct("<Q")  # bytes of JSON, before the contents of bytes and arrays
REQUESTS = {"clip": ClipRequest, "look": Look}
RESULTS = {"clip": "frames", "look": "facts"}  # what must come back; a "value" for any other request
MAX_BYTES = {"ready": 0, "frames": 0, "facts": 32 << 20, "value": 1 << 20, "failed": 1 << 14, "memory": 0}
KINDS = tuple(MAX_BYTES)
MAX_REASON = 1000  # letters: at most ten bytes each


class MessageError(ValueError):
    """A message that no intact decode process sends."""


class Reply(NamedTuple):
    """The answer to a request or, with ``kind`` "ready", the first message of a process.

    Other kinds are "frames", which are in the block of the request; "facts" of a file; "value"; and "failed" and
    "memory", if the file cannot be decoded.
    """

    kind: str
    value: Any = None  # the facts, the value, or the reason of the failure
    resident_bytes: int = 0  # memory of the process after the request; 0 where the system does not tell


def pack(value: Any) -> bytes:
    """Write plain data: None, numbers, text, bytes, 1-D arrays of whole numbers, and lists of these.

    ``TypeError`` if the value holds anything else.

    >>> unpack(pack(["a.mp4", b"facts", np.arange(3)]))
    ['a.mp4', b'facts', array([0, 1, 2])]
    """
    contents: list[bytes] = []

    def outside(item: Any) -> Any:
        if isinstance(item, np.generic):
            return item.item()
        if isinstance(item, os.PathLike):
            return os.fspath(item)
        if isinstance(item, bytes):
            contents.append(item)
            return {"bytes": len(item)}
        if isinstance(item, np.ndarray) and item.ndim == 1 and item.dtype.kind in "iu":
            contents.append(item.astype("<i8").tobytes())
            return {"int64": item.size}
        raise TypeError(f"got {item!r} for a decode process; expected plain data")

    head = json.dumps(value, default=outside).encode()
    return b"".join([HEAD.pack(len(head)), head, *contents])


def unpack(message: bytes) -> Any:
    """Read plain data; ``MessageError`` if the message is not what ``pack`` writes.

    >>> unpack(b"garbage")
    Traceback (most recent call last):
    ...
    flexivid.data.workers.message.MessageError: got a message of 7 bytes that is no plain data
    """
    begin = HEAD.size

    def inside(mark: dict[str, Any]) -> Any:
        nonlocal begin
        ((kind, count),) = mark.items()
        start, begin = begin, begin + count * {"bytes": 1, "int64": 8}[kind]
        if type(count) is not int or not start <= begin <= len(message):
            raise ValueError("contents beyond the message")
        content = message[start:begin]
        return content if kind == "bytes" else np.frombuffer(content, "<i8").astype(np.int64)

    try:
        begin += HEAD.unpack_from(message)[0]
        value = json.loads(message[HEAD.size : begin], object_hook=inside)
    except (ValueError, TypeError, KeyError, RecursionError, struct.error) as error:
        raise MessageError(f"got a message of {len(message)} bytes that is no plain data") from error
    if begin != len(message):
        raise MessageError(f"got a message of {len(message)} bytes; expected {begin}")
    return value


def request_kind(request: Any) -> str:
    """Return which of ``REQUESTS`` it is; empty for other plain data.

    >>> request_kind(Look("a.mp4")), request_kind("a.mp4")
    ('look', '')
    """
    return next((name for name, kind in REQUESTS.items() if isinstance(request, kind)), "")


def pack_request(work: str, request: Any) -> bytes:
    """Write a request.

    >>> unpack_request(pack_request("flexivid.data.decoding.probe:look_at", Look("a.mp4")))
    ('flexivid.data.decoding.probe:look_at', Look(path='a.mp4', decoder='auto'))
    """
    return pack([work, request_kind(request), request])


def unpack_request(message: bytes) -> tuple[str, Any]:
    """Return the name of the function that a request is for, and its argument; ``MessageError`` if it is no request."""
    content = unpack(message)
    if not isinstance(content, list) or len(content) != 3:
        raise MessageError("got a message that is no request")
    work, kind, request = content
    if kind:
        request = REQUESTS[kind](*(tuple(field) if isinstance(field, list) else field for field in request))
    return work, request


def pack_reply(reply: Reply) -> bytes:
    """Write a reply with its header.

    >>> list(take_replies(bytearray(pack_reply(Reply("value", 3, 1 << 20)))))
    [Reply(kind='value', value=3, resident_bytes=1048576)]
    """
    if reply.kind == "facts":
        body = reply.value.to_bytes()
    elif reply.kind == "failed":
        body = reply.value[:MAX_REASON].encode(errors="backslashreplace")
    else:
        body = pack(reply.value) if reply.kind == "value" else b""
    if len(body) > MAX_BYTES[reply.kind]:
        reason = f"a result of {len(body)} bytes; expected at most {MAX_BYTES[reply.kind]}"
        return pack_reply(Reply("failed", reason, reply.resident_bytes))
    return REPLY.pack(KINDS.index(reply.kind), reply.resident_bytes, len(body)) + body


def take_replies(inbox: bytearray) -> Iterator[Reply]:
    """Remove the complete replies from the bytes received; a partial one stays.

    ``MessageError`` at the first header that no intact process sends.

    >>> list(take_replies(bytearray(b"garbage of any kind")))
    Traceback (most recent call last):
    ...
    flexivid.data.workers.message.MessageError: got a message of kind 103; expected 0 to 5
    """
    while len(inbox) >= REPLY.size:
        number, resident_bytes, num_bytes = REPLY.unpack_from(inbox)
        if number >= len(KINDS):
            raise MessageError(f"got a message of kind {number}; expected 0 to {len(KINDS) - 1}")
        kind = KINDS[number]
        if num_bytes > MAX_BYTES[kind]:
            raise MessageError(f"got {num_bytes} bytes of {kind}; expected at most {MAX_BYTES[kind]}")
        end = REPLY.size + num_bytes
        if len(inbox) < end:
            return
        body = bytes(inbox[REPLY.size : end])
        del inbox[:end]
        yield Reply(kind, _value(kind, body), resident_bytes)


def _value(kind: str, body: bytes) -> Any:
    if kind == "value":
        return unpack(body)
    try:
        if kind == "facts":
            return Facts.from_bytes(body)
        return body.decode() if kind == "failed" else None
    except ValueError as error:
        raise MessageError(f"got {kind} that make no sense ({error})") from error
