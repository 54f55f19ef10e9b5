"""The scores' own cost, beyond feature extraction: seconds and peak memory on features drawn by seed.

    python tests/benchmarks/metrics_speed.py [--rows 50000] [--dimensions 2048] [--record]

Each figure is computed in a process of its own. Beside the Fréchet distance stands the usual way, the eigenvalues of
the product of two covariances (numpy.linalg.eigvals), on covariances that are already there; beside the kernel distance
of few rows, every subset by itself, as it is usually computed.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from machine import describe

from lvae.evaluate import metrics

RECORD = Path(__file__).with_suffix(".md")
SAMPLES = 10_000  # for precision and recall
CASES = {
    "fid": "Fréchet distance of {rows} rows to a stored mean and covariance",
    "fid2": "Fréchet distance between two sets of {rows} rows",
    "eigvals": "the usual way, from two covariances",
    "kid": "kernel distance, 100 subsets of 1,000",
    "kid-few": "the same, of 1,000 rows and 2,000",
    "kid-each": "the usual way, every subset by itself",
    "pr": "precision and recall, 10,000 against {rows}",
}


def features(rows: int, dimensions: int, seed: int) -> np.ndarray:
    """Positive and skewed, of decaying variances, as Inception's are."""
    random = np.random.default_rng(seed)
    scales = np.exp(-np.arange(dimensions, dtype=np.float32) / 400)
    found = np.empty((rows, dimensions), np.float32)
    for start in range(0, rows, 5000):
        part = random.standard_normal((min(5000, rows - start), dimensions), np.float32)
        found[start : start + len(part)] = np.abs(part * scales + 0.1 * (seed + 1) * scales)
    return found


def measure(case: str, rows: int, dimensions: int) -> dict[str, float]:
    few = case in ("kid-few", "kid-each")
    x = features(SAMPLES if case == "pr" else 1000 if few else rows, dimensions, 0)
    if case in ("fid", "eigvals"):
        moments = metrics.FeatureMoments.of_many(features(rows, dimensions, 1))
        mu, sigma = moments.mean, moments.covariance
        own = metrics.FeatureMoments.of_many(x)
    else:
        y = features(2000 if few else rows, dimensions, 1)
    start = time.perf_counter()
    if case == "fid":
        value = metrics.frechet_distance_to_moments(x, mu, sigma)
    elif case == "fid2":
        value = metrics.frechet_distance_from_features(x, y)
    elif case == "eigvals":
        roots = np.linalg.eigvals(own.covariance @ sigma).astype(complex)
        value = float(((own.mean - mu) ** 2).sum() + np.trace(own.covariance + sigma) - 2 * np.sqrt(roots).real.sum())
    elif case == "kid-each":
        random = np.random.default_rng(0)
        subsets = ((random.choice(1000, 1000, False), random.choice(2000, 1000, False)) for _ in range(100))
        value = float(np.mean([metrics.squared_mmd(x[one], y[other]) for one, other in subsets]))
    elif case in ("kid", "kid-few"):
        value = metrics.kernel_distance(x, y).mean
    else:
        value = metrics.precision_recall(x, y).precision
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"value": value, "seconds": time.perf_counter() - start, "peak_mib": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dimensions", type=int, default=2048)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--record", action="store_true", help="write metrics_speed.md")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.rows, options.dimensions)))
        return
    lines = [
        f"{describe()}, numpy {np.__version__}; {options.dimensions} dimensions",
        "",
        "| what | seconds | peak memory, features included, MiB | value |",
        "|---|---|---|---|",
    ]
    for case in options.cases.split(","):
        command = [sys.executable, __file__, "--one", case]
        command += ["--rows", str(options.rows), "--dimensions", str(options.dimensions)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        what = CASES[case].format(rows=f"{options.rows:,}")
        lines.append(f"| {what} | {found['seconds']:.1f} | {found['peak_mib']:.0f} | {found['value']:.8g} |")
        print(lines[-1], flush=True)
    print("\n".join(lines))
    if options.record:
        command = f"`python {Path(sys.argv[0]).as_posix()} {' '.join(sys.argv[1:])}`"
        RECORD.write_text(f"# The scores' own cost\n\n{command}\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
