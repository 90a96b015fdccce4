"""One video file: what it is, and its frames, exact or refused."""

DOORS = ("backends", "display", "facts", "frame_folder", "probe", "reader")
