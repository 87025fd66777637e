"""What happened to each device lately."""
