"""Endings of files of videos and of pictures."""

from __future__ import annotations

EXTENSIONS = (
    *("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg"),
    *("ts", "m2ts", "wmv", "flv", "3gp", "gif", "ogv"),
    *("mts", "m2t", "vob", "mxf", "asf", "y4m", "f4v", "divx", "xvid", "3g2", "ogm", "m2v", "m1v", "mpe", "mpv"),
    *("qt", "nut", "wtv", "dv", "gxf", "amv", "ivf", "rm", "rmvb", "insv", "mjpeg", "mjpg"),
    *("h264", "264", "h265", "265", "hevc"),
)
PICTURES = ("png", "jpg", "jpeg", "bmp", "webp", "tif", "tiff")
