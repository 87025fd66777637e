"""The console: pages for people, made on the server.

It holds presentation only. A page calls the functions of the JSON routes with the person's own
rights, adds no rule, and queries no database.
"""
