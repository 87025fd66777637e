"""Work on many devices at once: jobs, and counts of devices per broker."""
