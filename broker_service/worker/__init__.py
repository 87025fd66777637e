"""The process that runs the background loops of the broker service."""
