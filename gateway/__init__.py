"""HTTP and JSON for devices and for people.

The gateway owns no data: it reads a request, calls the registry or the broker service over gRPC,
and writes the answer. It is responsible for HTTP: paths, status codes, JSON, problem documents, the
OpenAPI document and its page.
"""
