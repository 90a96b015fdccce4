"""Which frames make a clip, in which order clips come, and how they are loaded."""

DOORS = ("buckets", "dataset", "frame_cache", "loader", "sampler", "trainer_state", "windows")
