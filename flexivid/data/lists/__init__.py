"""What lists and side-cars of users say: text, rows, cells, classes."""
