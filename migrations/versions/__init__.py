"""The history, oldest first. A released revision is never edited."""
