"""Which videos a collection holds: folders, lists, shards, tars, classes."""
