"""Read the lists and text files of users: text, rows, cells, classes."""

DOORS = ("cells", "classes", "tables", "text", "text_columns")
