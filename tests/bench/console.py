"""How soon each page of the console is usable: `python tests/bench/console.py [--models 50] [--rows 100000] [--runs 5]`.

A real stack with that many models (none but the demo model runs) and usage records, a real Chromium, somebody who signed in. Usable:
the page is drawn, its connection is there and its events are live, nothing on it still loads. The first visit of each page
follows signing in with a browser that was never there; the others are those of a browser that has been on the page before. Then ever
more browsers stay open, each with its own page, and the console's memory is read.
"""

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import asyncpg
import httpx
import psutil
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, sync_playwright
from usage_queries import FILL, SUM

from cortex_testing.stack import DEMO, Stack, eventually

LIMIT_MS = 1500
CLIENTS = (1, 10, 50)
VIEWPORT: ViewportSize = {"width": 1280, "height": 860}
SETTLED_S = 2.0
"""What the last visit set going (its closing connection, freed memory) has ended by then: nothing tells when."""
TYPED_S = 1.5
"""Nobody types a password faster; the sign-in page fetches the large files of the next page meanwhile, as it does for people."""
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
    const feed = document.querySelector(".c-feed")?.textContent;
    const live = window.did_handshake && feed === "Live" && document.querySelector("h1");
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
    first: float
    """Right after signing in, with nothing of the console in the browser."""
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
    context = browser.new_context(viewport=VIEWPORT, base_url=str(stack.ready["console_url"]))
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
    worked = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # a browser's process that it needs no more
            times = process.cpu_times()
            worked += times.user + times.system
    return 1000 * worked


def first_visit(browser: Browser, stack: Stack, path: str) -> float:
    """The page that one comes to by signing in, in a browser that was never here; the check of the password is counted, too."""
    fresh = browser.new_context(base_url=str(stack.ready["console_url"]), viewport=VIEWPORT)
    page = fresh.new_page()
    page.goto(f"/sign-in?{urlencode({'next': path})}")
    page.get_by_label("User name").fill(username(stack))
    page.get_by_label("Password").fill(PASSWORD)
    time.sleep(TYPED_S)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"**{path}", wait_until="commit")
    taken = float(page.evaluate(USABLE))
    fresh.close()
    return taken


def username(stack: Stack) -> str:
    """Of the first administrator."""
    users = admin(stack, "GET", "/admin/users")["items"]
    return str(next(user["username"] for user in users if user["role"] == "admin"))


def another(browser: Browser, context: BrowserContext, stack: Stack) -> BrowserContext:
    url = str(stack.ready["console_url"])
    return browser.new_context(storage_state=context.storage_state(), base_url=url, viewport=VIEWPORT)


def visit_all(browser: Browser, context: BrowserContext, stack: Stack, runs: int) -> list[Timed]:
    paths = paths_of(stack)
    first = {path: first_visit(browser, stack, real) for path, real in paths.items()}
    time.sleep(SETTLED_S)
    page = context.new_page()
    found: list[Timed] = []
    for path, real in paths.items():
        usable_after(page, real)
        taking_part = [stack.program("console"), stack.program("registry"), *browser_processes()]
        times, worked = list[float](), list[float]()
        for _ in range(runs):
            before = processor_ms(taking_part)
            times.append(usable_after(page, real))
            worked.append(processor_ms(taking_part) - before)
        found.append(Timed(path, first[path], tuple(times), tuple(worked)))
    page.close()
    return found


def paths_of(stack: Stack) -> dict[str, str]:
    """Where each page is."""
    model = str(stack.model()["id"])
    return {path: path.format(model=model) for path in PATHS}


def browser_processes() -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "chrom" in process.name():
                found.append(process)
    return found


def memory_of_clients(browser: Browser, context: BrowserContext, stack: Stack) -> None:
    """Tell the memory of a console that was just started with ever more browsers open: one that has worked has room for many."""
    stack.restarted("console", stack.kill("console"))
    url = str(stack.ready["console_url"])
    eventually(lambda: httpx.get(f"{url}/readyz").is_success)
    process, opened = stack.program("console"), list[BrowserContext]()
    paths = cycle(paths_of(stack).values())
    sizes = [own_memory(process)]
    for number in CLIENTS:
        while len(opened) < number:
            opened.append(another(browser, context, stack))
            usable_after(opened[-1].new_page(), next(paths))
        time.sleep(SETTLED_S)
        sizes.append(own_memory(process))
    told = ", ".join(f"{size:.0f} with {number}" for number, size in zip((0, *CLIENTS), sizes, strict=True))
    say(f"\nmemory of the console by open clients, MiB: {told}")
    say(f"{(sizes[-1] - sizes[-2]) / (CLIENTS[-1] - CLIENTS[-2]):.2f} MiB for each further client")


def own_memory(process: psutil.Process) -> float:
    """MiB that would be free without it."""
    return process.memory_full_info().uss / 2**20


def report(found: list[Timed]) -> bool:
    say(f"\n{'page':<26}{'first':>9}{'median':>9}{'slowest':>10}{'processor':>12}")
    late = False
    for one in sorted(found, key=lambda one: -statistics.median(one.times)):
        median, slowest = statistics.median(one.times), max(one.first, *one.times)
        late = late or slowest > LIMIT_MS
        numbers = f"{one.first:>6.0f} ms{median:>6.0f} ms{slowest:>7.0f} ms{statistics.median(one.worked):>9.0f} ms"
        say(f"{one.path:<26}{numbers}{'  late' if slowest > LIMIT_MS else ''}")
    return late


def main() -> int:
    """Run; 1 when a visit of a page took longer than the limit."""
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
            say(f"Chromium {browser.version}, NiceGUI {version('nicegui')}, Python {sys.version.split()[0]}")
            late = report(visit_all(browser, context, stack, arguments.runs))
            memory_of_clients(browser, context, stack)
            say(f"load in the end {psutil.getloadavg()[0]:.1f}")
            browser.close()
    finally:
        stack.stop()
        shutil.rmtree(home, ignore_errors=True)
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
