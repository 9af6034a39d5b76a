"""Mixed load while parts of the stack die: `python tests/bench/mixed_load.py [--minutes 30] [--seed 1] [--plots docs/images]`.

A real stack with two gateways, two models with five replicas and one that embeds, and clients that think between their requests.
Ends with status 1 when a request hung, was cut off, looked whole and was not, or was recorded otherwise than its client counted.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from gateway.proxies import Environments

from cortex_testing.binaries import demo_gguf
from cortex_testing.mixed_load.books import table
from cortex_testing.mixed_load.ledger import End, percentile
from cortex_testing.mixed_load.memory import slope_per_hour
from cortex_testing.mixed_load.run import MixedLoad, Plan, Report
from cortex_testing.stack import Stack


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


def tell(report: Report) -> None:
    ledger = report.ledger
    say(f"{len(ledger.seen)} requests: {dict(ledger.ends())}")
    took = [one.took_s for one in ledger.seen if one.end is End.ANSWERED]
    say(
        f"answered in {percentile(took, 0.5):.2f} s (median), {percentile(took, 0.99):.2f} s (p99), {max(took):.1f} s at most"
    )
    say(f"errors told: {dict(ledger.errors().most_common())}")
    say(f"{sum(report.acts.values())} acts: {dict(report.acts)}")
    say(f"all recorded {report.settled_s:.1f} s after the last request\n")
    say(table(report.comparison) + "\n")
    for note in report.comparison.notes:
        say(note)
    for name, samples in report.memory.samples.items():
        sizes = [size for _, size in samples]
        say(
            f"memory of the {name} gateway: {sizes[0]:.1f} MB at first, {sizes[-1]:.1f} at last, {max(sizes):.1f} at most, "
            f"{slope_per_hour(samples):+.2f} MB/h over the last two thirds"
        )
    say(f"\n{len(report.problems)} problems")
    for problem in report.problems:
        say(f"  {problem}")


def plot(report: Report, folder: Path, home: Path) -> None:
    """docs/images/mixed-load.svg by matplotlib, in an environment of its own."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"memory": report.memory.samples, "acts": report.act_log}, file)
        file.flush()
        python = Environments(home).program("plot", "fonttools").parent / "python"
        script = Path(__file__).with_name("mixed_load_plot.py")
        subprocess.run([python, script, file.name, folder / "mixed-load.svg"], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--think", type=float, default=1.0, help="mean seconds between two requests of a client")
    parser.add_argument("--pause", type=float, default=5.0, help="mean seconds between two acts")
    parser.add_argument("--plots", type=Path, help="folder for mixed-load.svg")
    parser.add_argument("--home", type=Path, default=Path.home() / ".cache" / "cortex-bench")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="cortex-mixed-"))
    say(f"logs are kept in {folder}")
    stack = Stack(folder / "home")
    stack.start("--no-demo")
    try:
        plan = Plan(chosen.minutes * 60, chosen.seed, chosen.clients, chosen.think, chosen.pause)
        report = MixedLoad(stack, demo_gguf(), folder, plan).run()
        tell(report)
        if chosen.plots is not None:
            plot(report, chosen.plots, chosen.home)
    finally:
        stack.stop()
    sys.exit(bool(report.problems))


if __name__ == "__main__":
    main()
