"""Metrics for Prometheus, on a port of their own."""

from prometheus_client import start_http_server


def serve(port: int | None) -> None:
    """Serves /metrics on loopback; does nothing where `port` is None."""
    if port is not None:
        try:
            start_http_server(port, addr="127.0.0.1")
        except OSError:
            raise SystemExit(f"127.0.0.1:{port} cannot be bound: is the port taken?") from None
