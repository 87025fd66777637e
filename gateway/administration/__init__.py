"""The routes for people and scripts, which authenticate with an API token. Their JSON is
snake_case.

Each module is a resource: the types of its bodies and answers, and its routes. The services decide
what the values mean and which token may do what.
"""
