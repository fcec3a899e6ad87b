"""C sources of built programs: the mains and their readers and writers of files."""
