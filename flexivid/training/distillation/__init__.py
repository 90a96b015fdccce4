"""Train the weak modes of a pre-trained transformer to answer as its native mode does."""

DOORS = ("module",)
