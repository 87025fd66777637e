"""One search over all that a person may read, and over the pages of the console."""
