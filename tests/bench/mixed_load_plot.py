"""`python mixed_load_plot.py results.json file.svg`: memory of the gateways over time, as SVG. Runs in an environment of its own."""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt


def main() -> None:
    results = json.loads(Path(sys.argv[1]).read_text())
    target = Path(sys.argv[2])
    target.parent.mkdir(parents=True, exist_ok=True)
    figure, (memory, acts) = plt.subplots(2, 1, sharex=True, figsize=(11, 5), height_ratios=(3, 2))
    for name, samples in results["memory"].items():
        memory.plot([at / 60 for at, _ in samples], [size for _, size in samples], label=f"{name} gateway", linewidth=1)
    names = sorted({name for _, name in results["acts"]}, reverse=True)
    acts.plot(
        [at / 60 for at, _ in results["acts"]],
        [names.index(name) for _, name in results["acts"]],
        "|",
        markersize=7,
        color="black",
    )
    acts.set_yticks(range(len(names)), names, fontsize=7)
    acts.set_xlabel("minutes")
    memory.set_ylabel("resident memory, MB")
    memory.set_ylim(0, 1.15 * max(size for samples in results["memory"].values() for _, size in samples))
    memory.set_xlim(left=0)
    memory.legend(fontsize=8, loc="lower right")
    for axis in (memory, acts):
        axis.grid(visible=True, alpha=0.25)
    figure.tight_layout()
    figure.savefig(target)


if __name__ == "__main__":
    main()
