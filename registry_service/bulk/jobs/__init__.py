"""Jobs change many devices: they are managed here, and run by `registry_service.worker`."""
