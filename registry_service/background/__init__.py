"""What goes on in the background: jobs, a chunk at a time. A process of its own."""
