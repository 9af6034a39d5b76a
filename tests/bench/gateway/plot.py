"""`python plot.py results.json folder`: latency against load, as SVG. Runs in the bench's own environment."""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt

LABELS = {"p50_us": "median", "p99_us": "99th percentile"}


def main() -> None:
    curves = json.loads(Path(sys.argv[1]).read_text())["curves"]
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    for axis, field in zip(axes, LABELS, strict=True):
        for name, points in curves.items():
            kept = [point for point in points if point["requests_per_s"] > 0.9 * point["rate"]]
            axis.plot(
                [point["rate"] for point in kept],
                [point[field] / 1000 for point in kept],
                marker="o",
                markersize=3,
                label=name.partition("@")[0] + (", compiled" if name.endswith("/compiled") else ""),
            )
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("requests per second, one core")
        axis.set_title(LABELS[field])
        axis.grid(visible=True, which="both", alpha=0.25)
    axes[0].set_ylabel("latency, ms")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(folder / "gateway-latency.svg")


if __name__ == "__main__":
    main()
