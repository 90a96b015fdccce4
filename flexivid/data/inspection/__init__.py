"""Look at a collection: check, statistics, duplicates, preview."""
