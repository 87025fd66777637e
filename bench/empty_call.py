"""`python -m bench.empty_call ADDRESS METHOD SECONDS`: how long an empty gRPC call takes.

It is a yardstick of latency. Its client is grpc.aio on uvloop, like that of our services. It prints
the median in seconds.
"""

import asyncio
import statistics
import sys
import time

import grpc
import uvloop


async def median_s(address: str, method: str, seconds: float) -> float:
    """The median of sequential calls within `seconds`."""
    async with grpc.aio.insecure_channel(address) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        await asyncio.wait_for(channel.channel_ready(), 10)
        taken = []
        end = time.perf_counter() + seconds
        while (begin := time.perf_counter()) < end:
            await call(b"")
            taken.append(time.perf_counter() - begin)
    # The first calls warm up.
    return statistics.median(taken[len(taken) // 10 :])


if __name__ == "__main__":
    print(uvloop.run(median_s(sys.argv[1], sys.argv[2], float(sys.argv[3]))))
