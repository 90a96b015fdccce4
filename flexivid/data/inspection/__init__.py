"""Look at a collection: check, statistics, duplicates, preview."""

DOORS = ("inspect", "preview", "report", "stats")
