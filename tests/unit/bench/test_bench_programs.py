"""Real outputs of the programs that make the load, and how they are read."""

import pytest

from bench import h2load, pgbench, wrk
from bench.errors import CannotMeasure
from bench.h2load import H2loadReport
from bench.rows.storm import StormReport
from bench.wrk import WrkReport

PGBENCH = """\
pgbench (18.6)
transaction type: bench/sql/device.sql
scaling factor: 1
query mode: prepared
number of clients: 4
number of threads: 2
maximum number of tries: 1
duration: 5 s
number of transactions actually processed: 1892
number of failed transactions: 0 (0.000%)
latency average = 10.577 ms
initial connection time = 12.345 ms
tps = 378.184217 (without initial connection time)
"""
H2LOAD = """\
finished in 2.00s, 3684.50 req/s, 5.85MB/s
requests: 7373 total, 7369 started, 7369 done, 7369 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 7369 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 11.69MB (12261304) total, 32.87KB (33663) headers (space savings 96.29%), \
11.28MB (11827245) data
                     min         max         mean         sd        +/- sd
time for request:     1.86ms     10.68ms      4.33ms       719us    88.38%
req/s           :    3683.98     3683.98     3683.98        0.00   100.00%
"""
WRK = """\
Running 5s test @ http://127.0.0.1:4002
  1 threads and 64 connections
Requests/sec:   1199.96
{"answers": 6000, "seconds": 5.000150, "refused": 2, "socket_errors": 1, "p50_s": 0.049001, \
"p99_s": 0.127000, "max_s": 0.200000%s}
"""


def test_the_rate_of_pgbench_is_read() -> None:
    assert pgbench.rate_in(PGBENCH) == 378.184217
    assert pgbench.latency_s("3 17 2093 0 1700000000 123456") == 0.002093


@pytest.mark.parametrize(
    "output", ["", "pgbench: error: connection failed", PGBENCH + "Run was aborted due to an error"]
)
def test_a_failed_pgbench_has_no_rate(output: str) -> None:
    with pytest.raises(CannotMeasure):
        pgbench.rate_in(output)


def test_wrk_reports_on_its_last_line() -> None:
    report = wrk.report_in(WRK % "", WrkReport)
    assert (report.good, report.errors) == (5998, 3)
    assert report.good_per_s == pytest.approx(1199.56, abs=0.01)


def test_a_script_adds_its_own_counters() -> None:
    own = ', "wanted": 5.0, "registered": 5.0, "retries": 1.0, "resent": 0.0, "unhealed": 0.0'
    report = wrk.report_in(WRK % f'{own}, "storm_s": 2.5', StormReport)
    assert (report.registered, report.retries, report.storm_s) == (5, 1, 2.5)


@pytest.mark.parametrize("output", ["", "unable to connect", '{"answers": 1}'])
def test_a_failed_wrk_reports_nothing(output: str) -> None:
    with pytest.raises(CannotMeasure):
        wrk.report_in(output, WrkReport)


def test_the_rate_and_the_bytes_of_h2load_are_read() -> None:
    assert h2load.report_in(H2LOAD) == H2loadReport(3684.5, 7369, 7369, 11827245)
    with pytest.raises(CannotMeasure):
        h2load.report_in("could not connect")


def test_answers_without_a_body_are_errors() -> None:
    framed = 1605
    h2load.demand_answers([H2loadReport(1, 100, 100, 100 * framed)], framed)
    h2load.demand_answers([H2loadReport(1, 100, 100, 100 * framed + 7)], framed)
    for wrong in (
        H2loadReport(1, 100, 100, 99 * framed),
        H2loadReport(1, 100, 99, 100 * framed),
        H2loadReport(1, 0, 0, 0),
    ):
        with pytest.raises(CannotMeasure):
            h2load.demand_answers([wrong], framed)


def test_a_message_is_framed() -> None:
    assert h2load.framed(b"") == bytes(5)
    assert h2load.framed(b"abc") == b"\0\0\0\0\x03abc"
