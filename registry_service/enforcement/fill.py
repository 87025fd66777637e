"""The earlier name of a command."""

raise SystemExit(
    "registry_service.enforcement.fill is registry_service.admission.reconciler.fill now"
)
