"""`python mixed_load_plot.py results.json file.svg`: memory of the gateways over time, as SVG. Runs in an environment of its own."""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt


def main() -> None:
    results = json.loads(Path(sys.argv[1]).read_text())
    target = Path(sys.argv[2])
    target.parent.mkdir(parents=True, exist_ok=True)
    figure, axis = plt.subplots(figsize=(11, 4.2))
    for name, samples in results["memory"].items():
        axis.plot([at / 60 for at, _ in samples], [size for _, size in samples], label=f"{name} gateway", linewidth=1)
    names = sorted({name for _, name in results["acts"]})
    for row, name in enumerate(names):
        times = [at / 60 for at, act in results["acts"] if act == name]
        axis.plot(times, [-5 - 5 * row] * len(times), "|", markersize=7, color="black")
        axis.annotate(
            name, (0, -5 - 5 * row), xytext=(-6, 0), textcoords="offset points", ha="right", va="center", fontsize=6
        )
    axis.set_ylim(bottom=-5 * len(names) - 5)
    axis.set_yticks([tick for tick in axis.get_yticks() if tick >= 0])
    axis.set_xlabel("minutes")
    axis.set_ylabel("resident memory, MB", labelpad=70)
    axis.grid(visible=True, alpha=0.25)
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(target)


if __name__ == "__main__":
    main()
