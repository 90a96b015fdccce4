"""Which frames make a clip, in which order clips come, and how they are loaded."""
