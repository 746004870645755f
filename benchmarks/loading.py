"""How long Dagster's code location takes to load, against `import dagster` alone: medians and their ratio.

Run it with `python -m benchmarks.loading [runs]`.
"""

import statistics
import subprocess
import sys
import time


def seconds(code: str) -> float:
    """Wall time of a fresh interpreter that runs the code."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def main(runs: int) -> None:
    """Alternate both, so that a machine that slows down slows both."""
    pairs = [(seconds("import fashion_pipeline.definitions"), seconds("import dagster")) for _ in range(runs)]
    ours, dagster = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"definitions {ours:.2f} s, import dagster {dagster:.2f} s, ratio {ratio:.2f} (median of {runs} pairs)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
