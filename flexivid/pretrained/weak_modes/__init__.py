"""What a weak mode is made of, and how its layers take part in a call."""
