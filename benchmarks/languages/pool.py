"""The jobs of BenchmarkLanguages on the executors of Python's standard library.

Prints lines as go test does. Run by the report, or as: python3 pool.py
"""

import os
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed


def noop(task):
    return task + 1


def spin(rounds):
    x = 1
    for _ in range(rounds):
        x = (x * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
    return x


def timed(f):
    begin = time.perf_counter()
    f()
    return time.perf_counter() - begin


def calibrate(seconds):
    best = min(timed(lambda: spin(2000)) for _ in range(50))
    return max(1, int(2000 * seconds / best))


ROUNDS = calibrate(20e-6)


def compute(task):
    spin(ROUNDS)
    return task + 1


def run(executor, work, n):
    """Submits n tasks and collects their results as they come."""
    futures = [executor.submit(work, task) for task in range(n)]
    total = sum(future.result() for future in as_completed(futures))
    assert total == n * (n + 1) // 2, total


def main():
    for name, executor in (("python-threads", ThreadPoolExecutor), ("python-processes", ProcessPoolExecutor)):
        for task, work, n in (("noop", noop, 20_000), ("20µs", compute, 5_000)):
            for workers in (1, 2, 8):
                with executor(max_workers=workers) as pool:
                    run(pool, work, 500)
                    took = timed(lambda: run(pool, work, n))
                print(f"BenchmarkLanguages/task={task}/workers={workers}/impl={name}-{os.cpu_count()} \t{n}\t{took / n * 1e9:.1f} ns/op", flush=True)


if __name__ == "__main__":
    main()
