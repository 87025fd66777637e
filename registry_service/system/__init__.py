"""The processes of the installation, and which kinds of things have changed."""
