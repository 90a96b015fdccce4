"""Every video of a collection looked at once, one memory-mapped row each."""

DOORS = ("build", "videos")
