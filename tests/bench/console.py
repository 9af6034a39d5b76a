"""How soon each page of the console is usable: `python tests/bench/console.py [--models 50] [--rows 100000] [--runs 5]`.

A real stack with that many models (none but the demo model runs) and usage records, a real Chromium, somebody who signed in. Usable:
the page is drawn, its connection is live, nothing on it still loads. Then thirty browsers stay open, and the console's memory is read.
"""

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import psutil
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from usage_queries import FILL, SUM

from cortex_testing.stack import DEMO, Stack, eventually

LIMIT_MS = 1500
CLIENTS = 10
PASSWORD = "a quiet lighthouse keeps turning"
DAYS = 30
PATHS = (
    "/", "/models", "/models/new", "/models/{model}", "/models/{model}/edit", "/playground", "/calculator", "/recipes", "/health",
    "/usage", "/events", "/system", "/keys", "/users", "/organisations", "/audit", "/settings", "/settings/upstreams",
    "/settings/webhooks", "/settings/backups", "/account", "/guide",
)  # fmt: skip
NORMAL = "sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random())"
"""The embedded Postgres may be older than `random_normal`."""
USABLE = """() => new Promise((done) => {
  const shown = (one) => one.offsetParent !== null;
  const look = () => {
    const live = document.querySelector(".c-feed")?.textContent === "Live" && document.querySelector("h1");
    const loading = [...document.querySelectorAll(".q-skeleton, .q-table__progress")].some(shown);
    if (live && !loading) done(performance.now());
    else requestAnimationFrame(look);
  };
  look();
})"""


@dataclass(frozen=True, slots=True)
class Timed:
    """Milliseconds from the beginning of the navigation, and of processor time of all that took part in it."""

    path: str
    times: tuple[float, ...]
    worked: tuple[float, ...]


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def admin(stack: Stack, method: str, path: str, body: Any = None) -> dict[str, Any]:
    answer = stack.admin(method, path, body)
    answer.raise_for_status()
    return answer.json() if answer.content else {}


def make_models(stack: Stack, count: int) -> None:
    """Clones of the demo model and a few models that others run; the demo model is one of them."""
    others = 5
    for number in range(1, count - others):
        admin(
            stack,
            "POST",
            f"/admin/models/{DEMO}/clone",
            {"name": f"model-{number}", "served_model_name": f"model-{number}"},
        )
    for number in range(others):
        body = {"served_model_name": f"elsewhere-{number}", "endpoints": [{"url": f"http://127.0.0.1:9/{number}"}]}
        admin(stack, "POST", "/admin/upstreams", body)
    assert len(admin(stack, "GET", "/admin/models")["items"]) == count


async def make_usage(stack: Stack, rows: int) -> None:
    """As `usage_queries.py` does: records, then the sums that the registry keeps of them."""
    environment = stack.program("registry").environ()
    connection = await asyncpg.connect(environment["CORTEX_REGISTRY_DATABASE_URL"], server_settings={"timezone": "UTC"})
    first = datetime.now(UTC) - timedelta(days=DAYS)
    await connection.execute("TRUNCATE usage, usage_hourly, usage_series, usage_periods CASCADE")
    for days in range(0, DAYS + 32, 15):
        await connection.execute("SELECT usage_make_month($1::date)", (first + timedelta(days=days)).date())
    fill = FILL.replace("random_normal()", NORMAL)
    await connection.execute(fill, first, timedelta(days=DAYS) / rows, 0, rows - 1, timeout=600)
    await connection.execute(SUM, timeout=600)
    await connection.execute("VACUUM ANALYZE", timeout=600)
    await connection.close()


def sign_in(browser: Browser, stack: Stack) -> BrowserContext:
    """The first administrator, by a link as `cortex up` prints it."""
    code = admin(stack, "POST", "/admin/auth/sign-in-codes")["code"]
    context = browser.new_context(viewport={"width": 1280, "height": 860}, base_url=str(stack.ready["console_url"]))
    page = context.new_page()
    page.goto(f"/sign-in/link?code={code}")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("New password", exact=True).fill(PASSWORD)
    page.get_by_label("New password once more").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Overview").wait_for()
    page.close()
    return context


def usable_after(page: Page, path: str) -> float:
    page.goto(path, wait_until="commit")
    return float(page.evaluate(USABLE))


def processor_ms(processes: Sequence[psutil.Process]) -> float:
    """What they have worked so far. It tells a slow page from a busy machine."""
    return 1000 * sum(times.user + times.system for times in (process.cpu_times() for process in processes))


def visit_all(context: BrowserContext, stack: Stack, model: str, runs: int) -> list[Timed]:
    page = context.new_page()
    found: list[Timed] = []
    for path in (path.format(model=model) for path in PATHS):
        usable_after(page, path)  # the first visit fills the browser's cache, as the first page after signing in does
        taking_part = [stack.program("console"), stack.program("registry"), *browser_processes()]
        times, worked = list[float](), list[float]()
        for _ in range(runs):
            before = processor_ms(taking_part)
            times.append(usable_after(page, path))
            worked.append(processor_ms(taking_part) - before)
        found.append(Timed(path.replace(model, "…"), tuple(times), tuple(worked)))
    page.close()
    return found


def browser_processes() -> list[psutil.Process]:
    mine = psutil.Process().children(recursive=True)
    return [process for process in mine if "chrom" in process.name()]


def memory_of_clients(browser: Browser, context: BrowserContext, stack: Stack, model: str) -> float:
    """MiB of the console for each further browser: of the last twenty of thirty, when what was free before is used up."""
    state, url, process = context.storage_state(), str(stack.ready["console_url"]), stack.program("console")
    opened: list[BrowserContext] = []
    sizes: list[float] = []
    paths = [path.format(model=model) for path in PATHS][:CLIENTS]
    for path in paths * 3:
        one = browser.new_context(storage_state=state, base_url=url)
        opened.append(one)
        usable_after(one.new_page(), path)
        sizes.append(process.memory_info().rss / 2**20)
    for one in opened:
        one.close()
    say(f"\nmemory of the console: {sizes[0]:.0f} MiB with one more client, {sizes[-1]:.0f} MiB with {len(opened)}")
    return (sizes[-1] - sizes[CLIENTS - 1]) / (len(opened) - CLIENTS)


def report(found: list[Timed]) -> bool:
    say(f"\n{'page':<26}{'median':>9}{'slowest':>10}{'processor':>12}")
    late = False
    for one in sorted(found, key=lambda one: -statistics.median(one.times)):
        median = statistics.median(one.times)
        late = late or median > LIMIT_MS
        say(
            f"{one.path:<26}{median:>6.0f} ms{max(one.times):>7.0f} ms{statistics.median(one.worked):>9.0f} ms{'  late' if median > LIMIT_MS else ''}"
        )
    return late


def main() -> int:
    """Run; 1 when the median of a page is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="cortex-bench-"))
    stack = Stack(home / "home")
    try:
        stack.start()
        make_models(stack, arguments.models)
        asyncio.run(make_usage(stack, arguments.rows))
        eventually(lambda: stack.model()["state"] == "running")
        say(
            f"{arguments.models} models, {arguments.rows} usage records, load {psutil.getloadavg()[0]:.1f} on {psutil.cpu_count()} cores"
        )
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
                args=["--no-sandbox", "--disable-gpu"],
            )
            context = sign_in(browser, stack)
            model = str(stack.model()["id"])
            late = report(visit_all(context, stack, model, arguments.runs))
            grown = memory_of_clients(browser, context, stack, model)
            say(f"{grown:.2f} MiB for each further client")
            browser.close()
    finally:
        stack.stop()
        shutil.rmtree(home, ignore_errors=True)
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
