"""The earlier name of a command."""

raise SystemExit("registry_service.enforcement is registry_service.worker now")
