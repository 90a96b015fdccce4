"""Where things are: one reading of every path that a user writes. Standard library only."""
