"""HTTP and JSON for devices and for people.

The gateway owns no data: it reads a request, asks the registry or the broker service over gRPC, and
writes what they answer. It owns what HTTP is about: paths, status codes, JSON, problem documents,
the OpenAPI document and its page.
"""
