"""Metrics of the console."""

from prometheus_client import Counter, Gauge, Histogram

SIGN_INS = Counter("cortex_console_sign_ins", "Tries to sign in, by what came of them", ["outcome"])
PAGES = Counter("cortex_console_pages", "Pages built, by page and outcome", ["page", "outcome"])
PAGE_SECONDS = Histogram(
    "cortex_console_page_seconds",
    "Seconds until a page was built",
    ["page"],
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
CLIENTS = Gauge("cortex_console_clients", "Pages open in browsers")
FEEDS = Gauge("cortex_console_feeds", "Streams of events from the registry")
