"""What every room needs to know of files: how paths are read, who writes, whole or not at all, how names are shown."""
