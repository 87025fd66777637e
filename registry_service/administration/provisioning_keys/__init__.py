"""Managing provisioning keys."""
