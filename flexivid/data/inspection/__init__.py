"""Look at a collection: check, statistics, duplicates, preview."""

DOORS = ("console", "inspect", "preview", "report", "stats")
