"""The earlier name of a command."""

raise SystemExit("registry_service.background is registry_service.worker now")
