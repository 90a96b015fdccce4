"""Pictures as players show them, against FFmpeg's own filters and the matrix applied point by point; or refused."""

import csv
import itertools
import math
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from flexivid.data.decoding.backends import DecordDecoder, View
from flexivid.data.decoding.facts import Facts
from flexivid.data.decoding.probe import probe
from flexivid.data.decoding.reader import ClipRequest, open_video, read_clip
from flexivid.data.storage.errors import VideoError

from . import crafted
from .crafted import SIZE, picture, refilter, write, write_parts

TURNS = [(1, 0, 0, 1), (-1, 0, 0, 1), (0, -1, 1, 0), (0, 1, 1, 0)]
TURNS += [(-1, 0, 0, -1), (1, 0, 0, -1), (0, 1, -1, 0), (0, -1, -1, 0)]
CODECS = [("a.mp4", "libx264"), ("a.mov", "prores_ks"), ("a.mkv", "libx264"), ("a.ts", "libx264"), ("a.avi", "mpeg4")]
CODECS += [("a.mpg", "mpeg2video"), ("a.flv", "libx264"), ("a.wmv", "wmv2"), ("a.gif", "gif"), ("a.mkv", "mjpeg")]
CODECS += [("a.mp4", "libx265"), ("a.mp4", "mpeg4"), ("a.h264", "libx264")]


def filtered(path, filters):
    """The first frame through filters of FFmpeg, in RGB first so that no resizing of colours comes in between."""
    with av.open(str(path), metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        frame = next(container.decode(stream))
        aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
        graph = av.filter.Graph()
        shape = f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/8"
        steps = [graph.add("buffer", f"{shape}:pixel_aspect={aspect.numerator}/{aspect.denominator}")]
        steps += [graph.add("format", "rgb24"), *(graph.add(*step.split(" ", 1)) for step in filters)]
        steps += [graph.add("format", "rgb24"), graph.add("buffersink")]
        for step, following in itertools.pairwise(steps):
            step.link_to(following)
        graph.configure()
        frame.time_base = Fraction(1, 8)
        graph.push(frame)
        return graph.pull().to_ndarray()


SQUARE = "scale w=round(iw*sar):h=ih:flags=bicubic"


def first(path, **options):
    with open_video(path, **options) as reader:
        frame = reader.frames([0])[0]
        assert frame.shape[:2] == reader.size == (options.get("size") or reader.info.size)
        return frame


def distance(one, other):
    assert one.shape == other.shape
    return np.abs(one.astype(int) - other).mean()


@pytest.mark.parametrize(("name", "codec"), CODECS)
def test_pixels_become_square_as_by_the_filters_of_ffmpeg(tmp_path, name, codec):
    aspect = (16, 15) if codec == "mpeg2video" else (64, 45)  # MPEG-2 knows shapes of pictures, not of pixels
    size = (576, 720) if codec == "mpeg2video" else SIZE
    path = write(tmp_path / name, size, codec=codec, aspect=aspect)
    expected = filtered(path, [SQUARE])
    assert expected.shape[1] == round(size[1] * aspect[0] / aspect[1])
    assert distance(first(path), expected) < 3  # colours of half the resolution are resized before or after
    raw = first(path, square_pixels=False)
    assert raw.shape[:2] == size
    assert distance(raw, filtered(path, [])) < 3
    assert first(path, size=(24, 24)).shape == (24, 24, 3)


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("aspect", [(1, 1), (4, 3), (3, 4)])
def test_turns_and_flips_put_every_point_where_the_matrix_says(tmp_path, turn, name, aspect):
    a, b, c, d = turn
    path = write(tmp_path / name, (48, 60), aspect=aspect, matrix=turn)
    shown = filtered(path, [SQUARE])
    height, width = shown.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width]
    new_columns, new_rows = a * columns + c * rows, b * columns + d * rows
    expected = np.zeros((width, height, 3) if a == 0 else shown.shape, np.uint8)
    expected[new_rows - new_rows.min(), new_columns - new_columns.min()] = shown
    assert distance(first(path), expected) < 3
    cut = first(path, size=(20, 30))
    assert distance(cut, read_clip(ClipRequest(str(path), probe(path).to_bytes(), np.arange(1), (20, 30)))[0]) == 0
    raw = first(path, square_pixels=False)
    assert raw.shape[:2] == ((60, 48) if a == 0 else (48, 60))


@pytest.mark.parametrize("rotation", [0.5, 89.6, 180.4, -90])
def test_angles_that_are_nearly_right(tmp_path, rotation):
    path = write(tmp_path / "a.mp4", rotation=rotation)
    quarters = round(rotation / 90)
    assert distance(first(path), np.rot90(first(write(tmp_path / "b.mp4")), quarters)) == 0


@pytest.mark.parametrize(
    ("matrix", "reason"),
    [
        ((0.7, 0.7, -0.7, 0.7), "turns pictures by 45 degrees"),
        ((0.998, 0.07, -0.07, 0.998), "turns pictures by 4.01 degrees"),
        ((1, 0, 0.5, 1), "shears pictures|stretches pictures"),
        ((0, 2, -1, 0), "stretches pictures by 0.5"),
        ((1, 0, 0, 0), "onto a line"),
        ((1, 1, 1, 1), "shears|degrees"),
    ],
)
def test_matrices_that_players_read_in_different_ways_are_refused(tmp_path, matrix, reason):
    path = write(tmp_path / "a.mp4", matrix=matrix)
    for options in ({}, {"square_pixels": False}):
        with pytest.raises(VideoError, match=rf"a\.mp4: its display matrix .*({reason})"):
            open_video(path, **options)


def test_matrices_that_only_scale(tmp_path):
    plain = first(write(tmp_path / "a.mp4"))
    assert distance(first(write(tmp_path / "b.mp4", matrix=(2, 0, 0, 2))), plain) == 0
    assert distance(first(write(tmp_path / "c.mp4", matrix=(0, 0, 0, 0))), plain) == 0
    wide = write(tmp_path / "d.mp4", matrix=(2, 0, 0, 1))
    assert first(wide).shape[:2] == (72, 180)
    assert distance(first(wide), filtered(wide, [SQUARE])) < 3


def test_what_the_container_says_of_pixels_goes_before_what_the_codec_says(tmp_path):
    path = refilter(
        write(tmp_path / "a.mp4", aspect=(3, 2)), tmp_path / "b.mp4", "h264_metadata=sample_aspect_ratio=3/4"
    )
    assert first(path).shape[:2] == (72, 135)
    silent = refilter(write(tmp_path / "a.mp4"), tmp_path / "c.mp4", "h264_metadata=sample_aspect_ratio=4/3")
    assert first(silent).shape[:2] == (72, 120)


def test_orientation_stated_by_the_codec(tmp_path):
    said = "h264_metadata=display_orientation=insert:rotate=90:flip=horizontal"
    path = refilter(write(tmp_path / "a.mp4", num_frames=6), tmp_path / "b.mp4", said)
    with av.open(str(path)) as container:
        matrix = struct.unpack("=9i", bytes(next(container.decode(video=0)).side_data["DISPLAYMATRIX"]))
    a, b, c, d = (round(matrix[i] / crafted.ONE) for i in (0, 1, 3, 4))
    plain = first(tmp_path / "a.mp4")
    rows, columns = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    places = a * columns + c * rows, b * columns + d * rows
    expected = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    expected[places[1] - places[1].min(), places[0] - places[0].min()] = plain
    with open_video(path) as reader:
        for frame in reader.read():  # it holds for all frames, though only the first one states it
            assert distance(frame, expected) < 1


@pytest.mark.parametrize("left", [2, 4, 8, 16, 24, 32])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_codecs_cut_exactly_what_they_say(tmp_path, left, codec):
    path = write(tmp_path / "a.mp4", (96, 128), codec=codec)
    kind = "h264" if codec == "libx264" else "hevc"
    said = f"{kind}_metadata=crop_left={left}:crop_top=4:crop_right=6:crop_bottom=2"
    cut = first(refilter(path, tmp_path / "b.mp4", said))
    assert np.array_equal(cut, first(path)[4:-2, left:-6])


def test_containers_that_cut(tmp_path):
    mp4, mkv = write(tmp_path / "a.mp4", (96, 128)), write(tmp_path / "a.mkv", (96, 128))
    whole = first(mp4)
    crop = b"".join(
        crafted.number(kind, value)
        for kind, value in zip((crafted.TOP, crafted.BOTTOM, crafted.LEFT, crafted.RIGHT), (4, 2, 6, 8), strict=True)
    )
    content = crafted.with_elements(mkv.read_bytes(), crop)
    (tmp_path / "b.mkv").write_bytes(content)
    for source in (content, tmp_path / "b.mkv"):
        assert np.array_equal(first(source), whole[4:-2, 6:-8])
        assert np.array_equal(first(source, square_pixels=False), whole[4:-2, 6:-8])
    wide = crafted.number(crafted.DISPLAY_WIDTH, 228) + crafted.number(crafted.DISPLAY_HEIGHT, 90)  # of what is shown
    assert first(crafted.with_elements(mkv.read_bytes(), crop + wide)).shape[:2] == (90, 228)
    clap = crafted.clap(100, 80, right=8, down=-8)  # 4 columns to the right of the centre, 4 rows above it
    assert np.array_equal(first(crafted.with_boxes(mp4.read_bytes(), clap)), whole[4:84, 18:118])
    both = first(crafted.with_boxes(mp4.read_bytes(), clap + crafted.pasp(4, 3)))
    assert both.shape[:2] == (80, 133)
    assert distance(both[:, 2:-2], np.asarray(Image.fromarray(whole[4:84, 18:118]).resize((133, 80)))[:, 2:-2]) < 3
    for senseless in (crafted.clap(200, 80), crafted.clap(0, 0), crafted.clap(100, 80, right=900)):
        assert np.array_equal(first(crafted.with_boxes(mp4.read_bytes(), senseless)), whole)


def test_cut_turned_and_mirrored_at_once(tmp_path):
    path = write(tmp_path / "a.mp4", (96, 128), matrix=(0, 1, 1, 0))
    cut = crafted.with_boxes(path.read_bytes(), crafted.clap(100, 80, right=8, down=-8))
    plain = first(write(tmp_path / "b.mp4", (96, 128)))
    assert np.array_equal(first(cut), plain[4:84, 18:118].transpose(1, 0, 2))


def test_matroska_states_the_shape_of_pixels_for_codecs_that_cannot(tmp_path):
    content = write(tmp_path / "a.webm", codec="libvpx-vp9").read_bytes()
    wide = crafted.number(crafted.DISPLAY_WIDTH, 128) + crafted.number(crafted.DISPLAY_HEIGHT, 72)
    assert first(crafted.with_elements(content, wide)).shape[:2] == (72, 128)
    ratio = crafted.number(crafted.DISPLAY_WIDTH, 16) + crafted.number(crafted.DISPLAY_HEIGHT, 9)
    ratio += crafted.number(crafted.DISPLAY_UNIT, 3)
    assert first(crafted.with_elements(content, ratio)).shape[:2] == (72, 128)


@pytest.mark.parametrize("name", ["a.ts", "a.h264"])
def test_a_shape_that_changes_is_refused_and_a_size_that_changes_is_not(tmp_path, name):
    path, wide = tmp_path / name, (48, 96)
    for parts in ([(1, 1), (4, 3)], [(4, 3), (1, 1)]):
        write_parts(path, [((48, 64), aspect, 6) for aspect in parts])
        with pytest.raises(VideoError, match="the shape of the picture changes from 64x48 with pixels of"):
            open_video(path)
    with pytest.raises(VideoError, match=r"from 64x48 with pixels of 1:1 to 96x48 with pixels of 1:1: cut the file"):
        open_video(write_parts(path, [((48, 64), (1, 1), 6), (wide, (1, 1), 6)]))
    for second, aspect in (((96, 128), (1, 1)), (wide, (2, 3))):
        with open_video(write_parts(path, [((48, 64), (1, 1), 6), (second, aspect, 6)])) as reader:
            frames = reader.read()
        assert len(frames) == 12
        assert distance(frames[0], frames[-1]) < 5


def test_pictures_that_are_turned_from_the_middle_of_the_file_on_are_refused(tmp_path):
    plain = write(tmp_path / "a.h264")
    mirrored = "h264_metadata=display_orientation=insert:rotate=0:flip=horizontal"
    turned = refilter(plain, tmp_path / "b.h264", mirrored)
    with pytest.raises(VideoError, match="turned or mirrored in another way from the middle of the file on"):
        open_video(plain.read_bytes() + turned.read_bytes())
    assert np.array_equal(first(turned), first(plain)[:, ::-1])


def test_a_change_in_a_file_that_was_not_decoded_whole_is_refused_when_it_is_reached(tmp_path, monkeypatch):
    path = write_parts(tmp_path / "a.mkv", [((48, 64), (1, 1), 30), ((48, 96), (1, 1), 30)])
    monkeypatch.setattr("flexivid.data.decoding.probe.WHOLE_PIXELS", 0)
    monkeypatch.setattr("flexivid.data.decoding.probe._seeks", lambda source, info, entry: True)
    with open_video(path) as reader:
        assert reader.frames([3, 9]).shape == (2, 48, 64, 3)
        with pytest.raises(VideoError, match="the shape of the picture changes"):
            reader.frames([50])


def test_pixels_of_a_shape_that_cannot_be_meant(tmp_path):
    path = write(tmp_path / "a.mp4", aspect=(60, 1))
    with pytest.raises(VideoError, match=r"states pixels of 60:1; data\.square_pixels=false takes them as they are"):
        open_video(path)
    assert first(path, square_pixels=False).shape[:2] == SIZE


def test_other_decoders_show_the_same_or_refuse(tmp_path):
    wide = write(tmp_path / "a.mp4", aspect=(64, 45), num_frames=8)
    info = probe(wide, decoder="decord")
    with open_video(wide, info=info) as reader:
        by_decord = reader.frames([5])[0]
        assert isinstance(reader._decoder, DecordDecoder)
    assert distance(by_decord, first(wide)) < 2
    mirrored = write(tmp_path / "b.mp4", matrix=(-1, 0, 0, 1))
    cut = crafted.with_boxes(write(tmp_path / "c.mp4").read_bytes(), crafted.clap(60, 60))
    left = refilter(write(tmp_path / "d.mp4", (96, 128)), tmp_path / "e.mp4", "h264_metadata=crop_left=16")
    for source in (mirrored, cut, left):
        with pytest.raises(VideoError, match="not decoded exactly by decord"):
            probe(source, decoder="decord")
    for source in (mirrored, cut):
        with pytest.raises(VideoError, match="does not turn, mirror or cut"):
            DecordDecoder(source, probe(source), View())


def test_interlaced_pictures_are_told_and_stay_as_they_are(tmp_path):
    options = {"flags": "+ildct+ilme", "qmin": "1", "qmax": "2"}
    info = probe(write(tmp_path / "a.mpg", codec="mpeg2video", options=options))
    assert info.display.interlaced
    assert info.display_words == "interlaced"
    assert probe(write(tmp_path / "b.mpg", codec="mpeg2video")).display_words == ""


def test_facts_keep_what_is_said_of_the_display(tmp_path):
    path = write(tmp_path / "a.mp4", aspect=(64, 45), matrix=(0, 1, 1, 0))
    info = probe(path)
    assert (info.size, info.rotation, info.display.mirrored) == ((128, 72), 90, True)
    assert Facts.from_bytes(info.to_bytes()).display == info.display
    assert info.with_pixels(square=False).size == (90, 72)
    assert info.with_pixels(square=False).with_pixels(square=True).size == info.size
    assert info.display_words == "stored as 90x72, pixels of 64:45, mirrored"


@pytest.mark.parametrize("ending", ["png", "jpg", "tiff"])
def test_pictures_that_ffmpeg_wrote_out_of_a_video_are_shown_like_it(tmp_path, ending):
    codec, pixels = {"png": ("png", "rgb24"), "jpg": ("mjpeg", "yuvj420p"), "tiff": ("tiff", "rgb24")}[ending]
    folder = tmp_path / "frames"
    folder.mkdir()
    with av.open(str(folder / f"%03d.{ending}"), "w", format="image2") as container:
        stream = container.add_stream(codec, rate=8)
        stream.height, stream.width, stream.pix_fmt = *SIZE, pixels
        stream.codec_context.sample_aspect_ratio = Fraction(64, 45)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture())))
        container.mux(stream.encode())
    expected = filtered(folder / f"001.{ending}", [SQUARE])
    assert distance(first(folder), expected) < 3
    assert first(folder, square_pixels=False).shape[:2] == SIZE
    Image.fromarray(picture()).save(folder / f"002.{ending}")
    with pytest.raises(VideoError, match=r"002\..* has pixels of 1, 001\..* of 64/45"):
        open_video(folder)


def test_pictures_whose_densities_are_read_in_different_ways(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    Image.fromarray(picture()).save(folder / "1.png", dpi=(300, 301))
    assert first(folder).shape[:2] == SIZE
    Image.fromarray(picture()).save(folder / "1.png", dpi=(100, 200))
    with pytest.raises(VideoError, match=r"1\.png has other dots an inch across than down"):
        open_video(folder)


def test_real_files_are_as_large_as_they_say(shared_videos):
    for row in csv.DictReader((shared_videos / "check" / "MANIFEST.csv").open()):
        if int(row["frames"] or 0) == 0 or row["file"].startswith(("bad__", "decord__corrupted")):
            continue
        with av.open(str(shared_videos / "check" / row["file"]), metadata_errors="ignore") as container:
            stream = container.streams.best("video")
            wide = stream.codec_context.width * (stream.sample_aspect_ratio or 1) / stream.codec_context.height
        height, width = probe(shared_videos / "check" / row["file"]).size
        assert min(abs(math.log(wide * height / width)), abs(math.log(wide * width / height))) < 0.01, row["file"]
