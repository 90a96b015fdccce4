"""Look at a collection: check, statistics, duplicates, preview."""

DOORS = ("encoded", "inspect", "preview", "recipe", "report", "stats")
