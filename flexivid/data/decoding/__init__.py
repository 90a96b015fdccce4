"""One video file: what it is, and its frames, exact or refused."""
