"""The gateway against other proxies, on one core, in one run.

Everything is real but the engines: a NATS with the documents of one model with four replicas and a thousand keys that
have limits, usage records published to it, metrics, request ids. The proxy has one core to itself; engines, load and NATS
share another. Rounds are interleaved (every proxy is up all the time and gets its turn in each round), because the speed
of a virtual machine moves by a factor of two while you look: compare within one run only, and look at `spin_ms`.

  python -m tests.bench.gateway                          everything, three rounds (about ten minutes)
  python -m tests.bench.gateway --only direct,gateway --rounds 1 --seconds 1     a first look, no rivals installed
  python -m tests.bench.gateway --idle 1000,5000         memory of idle streams, a fresh process each
  python -m tests.bench.gateway --curve --plots docs/images    latency against load, as SVG
  python -m tests.bench.gateway --out results.json       keep what was measured
  python -m tests.bench.gateway --only direct,gateway,gateway@/tmp/other/src     two versions of the gateway
  python -m tests.bench.gateway --realtime               on a machine that has other work, too (needs root)

Rivals live in virtual environments of their own (--home) that are made when they are first needed; nginx comes from the
system (`apt-get install nginx-light`). A C compiler has to be there (`cc`).

  req/s best, median   closed loop with 64 and with 16 connections; the best round is the one that nothing disturbed
  CPU µs/request       processor time of the proxy, all its threads, from the scheduler's own books
  c=1 p50              one connection: what the proxy adds to a lone request, on top of the row `direct`
  TTFT p50             64 streams with an event every 10 ms: from the request to the first byte of the answer
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .measure import RATES, Rig
from .proxies import EVERYTHING, Environments, Proxy, Starter
from .report import faults, ratios, table
from .world import Cores, Engines, Tools


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.gateway", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(EVERYTHING), help="proxies, comma-separated: %(default)s")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement (default %(default)s)")
    parser.add_argument("--runs", default="busy,busy16,alone,stream", help="measurements: %(default)s; also flood")
    parser.add_argument("--keys", type=int, default=1000, help="API keys that the gateway knows (default %(default)s)")
    parser.add_argument("--idle", default="", help="numbers of idle streams, e.g. 1000,5000; instead of the rounds")
    parser.add_argument("--curve", action="store_true", help="latency at constant rates; instead of the rounds")
    parser.add_argument("--plots", type=Path, help="folder for the SVG of --curve")
    parser.add_argument("--cores", default="0,1", help="core of the proxy, core of the rest (default %(default)s)")
    parser.add_argument(
        "--realtime", action="store_true", help="everything else on this machine waits while it is measured (root)"
    )
    parser.add_argument("--home", type=Path, default=Path.home() / ".cache" / "cortex-bench")
    parser.add_argument("--out", type=Path, help="JSON with everything that was measured")
    return parser.parse_args()


class Bench:
    """One run of the programme."""

    def __init__(self, chosen: argparse.Namespace, folder: Path) -> None:
        proxy, others = map(int, chosen.cores.split(","))
        cores = Cores(proxy, others)
        self.names = chosen.only.split(",")
        tools = Tools(folder)
        self.engines = Engines(tools, cores)
        self.environments = Environments(chosen.home)
        self.starter = Starter(cores, self.engines, self.environments, folder, chosen.keys)
        self.rig = Rig(cores, tools, chosen.seconds, self.starter.helpers, chosen.realtime)

    def close(self) -> None:
        self.starter.close()
        self.engines.close()

    def rounds(self, rounds: int, runs: list[str]) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """Every proxy is up; in each round each gets each measurement."""
        outcomes: dict[str, dict[str, list[dict[str, Any]]]] = {}
        up = self._start_all()
        try:
            for number in range(rounds):
                for run in runs:
                    for proxy in up:
                        outcome = self.rig.run(proxy, run)
                        outcomes.setdefault(proxy.name, {}).setdefault(run, []).append(outcome)
                        print(f"round {number + 1} {run:7s} {proxy.name:12s} {_short(outcome)}", file=sys.stderr)
        finally:
            for proxy in up:
                proxy.stop()
        return outcomes

    def curves(self) -> dict[str, list[dict[str, Any]]]:
        """Latency at constant rates, until a proxy cannot follow any more."""
        curves: dict[str, list[dict[str, Any]]] = {}
        up = self._start_all()
        try:
            for rate in RATES:
                for proxy in list(up):
                    done = curves.setdefault(proxy.name, [])
                    if done and done[-1]["requests_per_s"] < 0.9 * done[-1]["rate"]:
                        continue
                    outcome = self.rig.rate(proxy, rate) | {"rate": rate}
                    done.append(outcome)
                    print(f"{rate:6d}/s {proxy.name:12s} {_short(outcome)}", file=sys.stderr)
        finally:
            for proxy in up:
                proxy.stop()
        return curves

    def idle(self, counts: list[int]) -> dict[str, dict[str, Any]]:
        """Memory of open streams that say little, each number with a fresh process."""
        found: dict[str, dict[str, Any]] = {}
        for name in self.names:
            for count in counts:
                if name == "direct":
                    continue
                proxy = self.starter.start(name)
                try:
                    outcome = self.rig.idle(proxy, count)
                finally:
                    proxy.stop()
                grown = outcome["resident_kb"] - outcome["before_kb"]
                outcome["mb_per_1000"] = round(grown / 1024 / count * 1000, 2)
                found.setdefault(name, {})[str(count)] = outcome
                print(
                    f"{name:12s} {count} streams: {outcome['open_streams']} open, {outcome['before_kb'] // 1024} MB before, "
                    f"{outcome['mb_per_1000']} MB per 1,000",
                    flush=True,
                )
        return found

    def _start_all(self) -> list[Proxy]:
        up: list[Proxy] = []
        for name in self.names:
            try:
                up.append(self.starter.start(name))
            except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
                print(f"{name} is left out: {error}", file=sys.stderr)
        return up


def _short(outcome: dict[str, Any]) -> str:
    fields = ("requests_per_s", "cpu_us_per_request", "p50_us", "p99_us", "first_byte_p50_us", "spin_ms")
    return " ".join(f"{field}={outcome[field]:,.1f}" for field in fields if field in outcome)


def main() -> None:
    chosen = arguments()
    results: dict[str, Any] = {"machine": platform.platform(), "python": platform.python_version()}
    with tempfile.TemporaryDirectory(prefix="cortex-bench-") as folder:
        bench = Bench(chosen, Path(folder))
        try:
            if chosen.idle:
                results["idle"] = bench.idle([int(count) for count in chosen.idle.split(",")])
            elif chosen.curve:
                results["curves"] = bench.curves()
            else:
                results["rounds"] = bench.rounds(chosen.rounds, chosen.runs.split(","))
        finally:
            bench.close()
    if chosen.out is not None:
        chosen.out.write_text(json.dumps(results, indent=1))
    if "rounds" in results:
        print(table(results["rounds"]), ratios(results["rounds"]), *faults(results["rounds"]), sep="\n\n")
    if chosen.plots is not None and "curves" in results:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as kept:
            json.dump(results, kept)
            kept.flush()
            python = Environments(chosen.home).program("plot", "fonttools").parent / "python"
            subprocess.run([python, Path(__file__).with_name("plot.py"), kept.name, chosen.plots], check=True)


if __name__ == "__main__":
    main()
