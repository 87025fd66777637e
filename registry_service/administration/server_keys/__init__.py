"""Server keys: how many devices use each, and ending a leaked one."""
