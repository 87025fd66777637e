"""Measures how fast Mooring is on this machine: `make bench`.

Machines differ and their speed varies, so the results are ratios: each row measures the services
and, in the same minutes, a yardstick that does the least that any such service must do. The load
comes from wrk, h2load and pgbench, never from Python.
"""
