"""What people and scripts ask, with an API token. Their JSON is snake_case.

Each module is a resource: what may be sent, what is answered, and its routes. The services decide
what the values mean and who may do what.
"""
