"""One file a family of transformers: where its layers are, how it is called, what a pass costs."""

DOORS = ("family", "folding", "registry", "video_dit")
