"""How fast Mooring is on the machine at hand: `make bench`.

Machines differ and their speed swings, so what counts are ratios: each row measures the services
and, in the same minutes, a yardstick that does the least any such service would have to do. The
load comes from wrk, h2load and pgbench, never from Python.
"""
