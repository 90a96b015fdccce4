"""Videos that say something about how they are displayed: encoded, or with a few bytes put into their containers."""

import struct
from fractions import Fraction

import av
import numpy as np

SIZE = (72, 90)
ONE = 1 << 16
BOXES_OF_BOXES = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
SEGMENT, TRACKS, TRACK, VIDEO = b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\xae", b"\xe0"
PLACES = (b"\x11\x4d\x9b\x74", b"\x1c\x53\xbb\x6b")  # seek head and cues, which would be wrong
TOP, BOTTOM, LEFT, RIGHT = b"\x54\xbb", b"\x54\xaa", b"\x54\xcc", b"\x54\xdd"
DISPLAY_WIDTH, DISPLAY_HEIGHT, DISPLAY_UNIT = b"\x54\xb0", b"\x54\xba", b"\x54\xb2"


def picture(size=SIZE):
    """No symmetry, and no detail that a filter could lose: ramps, and a dark corner."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    ramps = [columns * 255 // size[1], rows * 255 // size[0], 255 - (rows + columns) * 255 // sum(size)]
    image = np.stack(ramps, -1).astype(np.uint8)
    image[: size[0] // 3, : size[1] // 3] //= 2
    return image


def write(path, size=SIZE, num_frames=4, *, codec="libx264", aspect=None, matrix=None, rotation=None, options=None):
    """Encode the same picture some times."""
    with av.open(str(path), "w") as container:
        options = options or ({"crf": "1"} if codec == "libx264" else {})
        stream = container.add_stream(codec, rate=8, options=options)
        stream.height, stream.width = size
        stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p", "prores_ks": "yuv422p10le"}.get(codec, "yuv420p")
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = Fraction(*aspect)
        if matrix is not None:
            a, b, c, d = matrix
            stream.set_display_matrix([round(x * ONE) for x in (a, b, 0, c, d, 0, 0, 0)] + [1 << 30])
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for _ in range(num_frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(size))))
        container.mux(stream.encode())
    return path


def write_parts(path, parts):
    """Put several encodes, each of (size, aspect, frames), one after another into one stream."""
    with av.open(str(path), "w") as container:
        stream, number = container.add_stream("libx264", rate=8), 0
        stream.height, stream.width, stream.pix_fmt = *parts[0][0], "yuv420p"
        stream.codec_context.open()
        for size, aspect, num_frames in parts:
            encoder = av.CodecContext.create("libx264", "w")
            encoder.height, encoder.width, encoder.pix_fmt = *size, "yuv420p"
            encoder.time_base, encoder.framerate = Fraction(1, 8), Fraction(8)
            encoder.options = {"crf": "1", "bf": "0"}
            encoder.sample_aspect_ratio = Fraction(*aspect)
            packets = []
            for _ in range(num_frames):
                frame = av.VideoFrame.from_ndarray(picture(size))
                frame.pts, frame.time_base, number = number, Fraction(1, 8), number + 1
                packets += encoder.encode(frame)
            for packet in packets + encoder.encode(None):
                packet.stream, packet.time_base = stream, Fraction(1, 8)
                container.mux(packet)
    return path


def refilter(path, target, bitstream_filter):
    """Copy packets through a bitstream filter, which rewrites what the codec says."""
    with av.open(str(path)) as source, av.open(str(target), "w") as container:
        stream = source.streams.video[0]
        copy = container.add_stream_from_template(stream)
        chain = av.BitStreamFilterContext(bitstream_filter, stream, copy)
        for packet in source.demux(stream):
            for changed in chain.filter(packet if packet.size else None):
                changed.stream = copy
                container.mux(changed)
    return target


def clap(width, height, right=0, down=0):
    """The clean aperture box; offsets in half pixels."""
    return struct.pack(">I4sIIIIiIiI", 40, b"clap", width, 1, height, 1, right, 2, down, 2)


def pasp(width, height):
    """The pixel aspect ratio box."""
    return struct.pack(">I4sII", 16, b"pasp", width, height)


def with_boxes(content, extra):
    """Put boxes at the end of each sample description of an MP4 whose index comes last."""
    out, place = b"", 0
    while place < len(content):
        size, kind = struct.unpack_from(">I4s", content, place)
        body = content[place + 8 : place + size]
        if kind in BOXES_OF_BOXES:
            body = with_boxes(body, extra)
        elif kind == b"stsd":
            (length,) = struct.unpack_from(">I", body, 8)
            body = body[:8] + struct.pack(">I", length + len(extra)) + body[12 : 8 + length] + extra
        out += struct.pack(">I4s", len(body) + 8, kind) + body
        place += size
    return out


def number(kind, value):
    """A Matroska element that holds a number."""
    return _element(kind, value.to_bytes(2, "big"))


def with_elements(content, extra):
    """Put elements into the video settings of a Matroska file, in place of others of their kinds."""
    replaced = {kind for kind, _ in _elements(extra)} | {DISPLAY_WIDTH, DISPLAY_HEIGHT, DISPLAY_UNIT}
    return _rewritten(content, extra, replaced)


def _rewritten(content, extra, replaced):
    out = b""
    for kind, body in _elements(content):
        if kind in (SEGMENT, TRACKS, TRACK):
            body = _rewritten(body, extra, replaced)
        elif kind == VIDEO:
            body = b"".join(_element(*item) for item in _elements(body) if item[0] not in replaced) + extra
        if kind not in PLACES:
            out += _element(kind, body)
    return out


def _elements(content):
    place = 0
    while place < len(content):
        width = 9 - content[place].bit_length()
        size_width = 9 - content[place + width].bit_length()
        begin = place + width + size_width
        size = int.from_bytes(content[place + width : begin], "big") & ((1 << (7 * size_width)) - 1)
        yield content[place : place + width], content[begin : begin + size]
        place = begin + size


def _element(kind, body):
    return kind + (len(body) | 1 << 56).to_bytes(8, "big") + body
