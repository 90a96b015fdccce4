"""Read the lists and text files of users: text, rows, cells, classes."""

DOORS = ("cells", "classes", "split_names", "tables", "text")
