"""What a weak mode is made of, and how its layers take part in a call."""

DOORS = ("affine", "derived", "flexi", "layers", "lora", "shadows", "weak_call")
