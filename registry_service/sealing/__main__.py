"""The earlier name of a command."""

raise SystemExit("registry_service.sealing is registry_service.audit.sealing now")
