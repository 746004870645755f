"""How often the intervals hold the truth, by simulation where the truth is known.

    python -m benchmarks.intervals [--repeats 1000] [--products 10 20 40 80]

Each repeat draws products with effects of their own, one to four seeds a product with noise of theirs, averages the
seeds and takes the interval over products as the evaluation does. Beside it stands what one gets by taking every image
for independent (the peer). Measures of sets are simulated from a cloud of unit vectors, their truth being the mean over
all repeats, which is what a set of that size says on average. Two threads are enough; minutes, no model.
"""

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fashion_pipeline.core.evaluation.distributions import distance, diversity
from fashion_pipeline.core.evaluation.statistics import Interval, bootstrap, product_means, share

Floats = NDArray[np.float64]
Effects = Callable[[np.random.Generator, int], Floats]

EFFECTS: dict[str, tuple[Effects, float]] = {
    "normal": (lambda rng, n: rng.normal(0.3, 0.1, n), 0.3),
    "skewed (gamma)": (lambda rng, n: rng.gamma(2.0, 0.1, n), 0.2),
    "two kinds of products": (lambda rng, n: np.where(rng.random(n) < 0.2, 0.8, 0.1) + rng.normal(0, 0.05, n), 0.24),
}
"""Effects of products, and their true mean."""


def nested(rng: np.random.Generator, effects: Effects, products: int) -> tuple[list[str], Floats]:
    """Product of each image, and its value: one to four seeds a product, with half as much noise as effects have."""
    own = effects(rng, products)
    seeds = rng.integers(1, 5, products)
    names = np.repeat([f"p{i}" for i in range(products)], seeds)
    return names.tolist(), np.repeat(own, seeds) + rng.normal(0, 0.05, len(names))


def holds(interval: Interval, truth: float) -> bool:
    """Whether an interval holds a value."""
    assert interval.low is not None and interval.high is not None
    return interval.low <= truth <= interval.high


def of_means(name: str, products: int, repeats: int) -> tuple[float, float]:
    """Coverage of the interval over products, and of the one over images."""
    effects, truth = EFFECTS[name]
    found = []
    for repeat in range(repeats):
        groups, values = nested(np.random.default_rng([repeat, products]), effects, products)
        own = bootstrap(product_means(groups, values)[1], seed=repeat)
        error = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
        found.append((holds(own, truth), abs(values.mean() - truth) <= error))
    over_products, over_images = np.mean(found, axis=0)
    return float(over_products), float(over_images)


def of_shares(truth: float, products: int, repeats: int) -> float:
    """Coverage of the interval of a share."""
    rngs = (np.random.default_rng([repeat, products, 7]) for repeat in range(repeats))
    return float(np.mean([holds(share(rng.random(products) < truth), truth) for rng in rngs]))


def of_sets(measure: str, products: int, repeats: int) -> float:
    """Coverage of the jackknife's interval of a set's measure."""

    def cloud(rng: np.random.Generator, spread: float) -> NDArray[np.float32]:
        rows = np.eye(24)[0] + rng.normal(0, spread, (products, 24))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    found = []
    for repeat in range(repeats):
        rng = np.random.default_rng([repeat, products, 11])
        drawn = cloud(rng, 0.4)
        found.append(diversity(drawn) if measure == "diversity" else distance(drawn, cloud(rng, 0.3)))
    truth = float(np.mean([interval.mean for interval in found]))
    return float(np.mean([holds(interval, truth) for interval in found]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--products", type=int, nargs="+", default=[10, 20, 40, 80])
    given = parser.parse_args()
    print(f"share of {given.repeats} intervals at 95 % that hold the truth")
    print(f"{'products':>8}  {'of':32} {'ours':>7}  {'images taken for independent':>28}")
    for products in given.products:
        for name in EFFECTS:
            ours, naive = of_means(name, products, given.repeats)
            print(f"{products:8}  {name:32} {ours:7.1%}  {naive:28.1%}", flush=True)
        for truth in (0.05, 0.5):
            print(f"{products:8}  {f'a share of {truth:.0%}':32} {of_shares(truth, products, given.repeats):7.1%}")
        for measure in ("diversity", "distance"):
            print(f"{products:8}  {measure:32} {of_sets(measure, products, given.repeats // 4):7.1%}", flush=True)


if __name__ == "__main__":
    main()
