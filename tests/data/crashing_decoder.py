"""What decode processes run in some tests: the real decoder, which crashes or hangs on files of certain names."""

import ctypes
import os
import time

from flexivid.data.decoding.reader import read_clip


def read(request):
    """Decode a clip, or do what the name of its file says."""
    name = os.path.basename(request.path)
    if name.startswith("crash"):
        ctypes.string_at(0)
    if name.startswith("hang"):
        time.sleep(1000)
    return read_clip(request)
