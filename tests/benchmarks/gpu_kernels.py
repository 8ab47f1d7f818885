"""Where a step's time goes on a GPU: the kernels of a candidate, and how long each takes.

    python tests/benchmarks/gpu_kernels.py polynet [--networks LeNet] [--precision tf32]

PyTorch's profiler sees all kernels of this process, also those of other libraries and of graphs.
The time of a step without the profiler is printed beside them.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections import defaultdict

import torch
from gpu_peers import CANDIDATES, NETWORKS, NOT_BY, PRECISIONS, WARM_UP, TaskIn, set_precision
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

PASSES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("candidate", choices=CANDIDATES)
    parser.add_argument("--networks", default="", help="only those with this in their name")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--most", type=int, default=20)
    options = parser.parse_args()
    if (options.precision, options.candidate) in NOT_BY:
        parser.error(f"{options.candidate} has no {options.precision}")
    set_precision(options.candidate, options.precision)
    for name, network in NETWORKS.items():
        if options.networks not in name:
            continue
        task = TaskIn(network)
        task.precision = options.precision
        candidate = CANDIDATES[options.candidate](task)
        for _ in range(WARM_UP):
            candidate.launch()
        candidate.wait()
        start = time.perf_counter()
        for _ in range(PASSES):
            candidate.launch()
        candidate.wait()
        step = (time.perf_counter() - start) / PASSES / network.steps
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            candidate.launch()
            candidate.wait()
            torch.cuda.synchronize()
        taken: dict[str, list[float]] = defaultdict(list)
        for event in seen.events():
            if event.device_type == DeviceType.CUDA:
                taken[event.name].append(event.device_time)
        busy, count = sum(map(sum, taken.values())), sum(map(len, taken.values()))
        print(
            f"{options.candidate}, {options.precision}, {name}: {step * 1e6:.1f} µs a step; "
            f"{count / network.steps:.1f} kernels, busy for {busy / network.steps:.1f} µs",
            flush=True,
        )
        for kernel, times in sorted(taken.items(), key=lambda k: -sum(k[1]))[: options.most]:
            each = f"{sum(times) / network.steps:9.2f} µs {len(times) / network.steps:7.2f}×"
            print(f"  {each}  {kernel[:100]}", flush=True)
        del candidate, task
        gc.collect()


if __name__ == "__main__":
    main()
