"""Helpers for tests of plug-ins: arrays of the loopback backend, a function of them, threads."""

import threading

import polynet


def loopback(values, *, device="loop:0"):
    return polynet.asarray(values, backend="loopback", device=device)


def square_sum(x):
    return (x * x)[0] + (x * x)[1]


def run_threads(target, count=1):
    threads = [threading.Thread(target=target) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
