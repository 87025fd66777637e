"""Jobs: what changes many devices is asked for here, and done by `registry_service.worker`."""
