"""What lists and side-cars of users say: text, rows, cells, classes."""

DOORS = ("cells", "classes", "split_names", "tables", "text")
