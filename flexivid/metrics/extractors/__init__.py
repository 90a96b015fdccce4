"""Networks that turn videos into features, and the weights they need."""

DOORS = ("extractor", "i3d", "i3d_weights", "motion")
