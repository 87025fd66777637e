"""The earlier name of a command."""

raise SystemExit("registry_service.keys is registry_service.administration.server_keys now")
