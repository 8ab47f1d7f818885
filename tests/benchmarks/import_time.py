"""How long `import polynet` takes beside `import numpy`, and the first training step.

Each measurement starts a new Python, and runs from its start to the end of its last statement. Ends
with exit code 1 if `import polynet` takes more than LIMIT longer than `import numpy`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from measure import environment, publish, table

LIMIT = 0.060
"""Seconds that `import polynet` may cost beyond `import numpy`."""

PARTS = "from polynet import Trainer, losses, nn, optim"
STEP = f"""\
import numpy as np
{PARTS}
net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
trainer = Trainer(net, losses.cross_entropy, optim.Adam(), backend="numpy")
trainer.fit(np.zeros((32, 64)), np.zeros(32, dtype=int), batch_size=32, progress=False)
assert len(trainer.history.step_losses) == 1
"""
PROGRAMS = {
    "Python alone": "",
    "`import numpy`": "import numpy",
    "`import polynet`": "import polynet",
    f"`{PARTS}`": PARTS,
    "the first training step, on numpy": STEP,
}


def seconds_to_end(program: str) -> float:
    """Seconds from the start of a new Python to the end of `program`."""
    code = f"{program}\nimport time; print(time.time())"
    start = time.time()
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout) - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="write the report to this file")
    parser.add_argument("--repeats", type=int, default=21)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for turn in range(options.repeats + 1):
        for name, program in PROGRAMS.items():
            taken = seconds_to_end(program)
            if turn:  # the first turn fills the disk's cache
                seconds[name].append(taken)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    beyond = {name: median - medians["`import numpy`"] for name, median in medians.items()}
    rows = [[n, f"{m * 1e3:.0f}", f"{beyond[n] * 1e3:+.0f}"] for n, m in medians.items()]
    kept = beyond["`import polynet`"] <= LIMIT
    verdict = "kept" if kept else "NOT KEPT"
    publish(
        "# Time from the start of Python, in milliseconds\n\n"
        + environment(["polynet-array", "numpy", "array-api-compat", "tqdm"])
        + f"- medians of {options.repeats} interleaved repeats, each a new process\n\n"
        + table(["until the end of", "ms", "beyond `import numpy`"], rows)
        + f"\n`import polynet` at most {LIMIT * 1e3:.0f} ms beyond `import numpy`: {verdict}.\n",
        options.out,
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
