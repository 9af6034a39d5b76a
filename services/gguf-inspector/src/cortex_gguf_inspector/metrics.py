"""Metrics of the GGUF inspector. Label values: `ok` and the refusal codes."""

from prometheus_client import Counter, Gauge, Histogram

INSPECTIONS = Counter("cortex_gguf_inspections_total", "Inspections by outcome (ok or a refusal code)", ["outcome"])
INSPECT_SECONDS = Histogram(
    "cortex_gguf_inspect_seconds",
    "Duration of an inspection",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
SCANS = Counter(
    "cortex_gguf_scans_total", "Scans of the models directory by outcome (ok or a refusal code)", ["outcome"]
)
SCAN_SECONDS = Histogram(
    "cortex_gguf_scan_seconds",
    "Duration of a scan of the models directory",
    buckets=(0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0),
)
ENTRIES = Gauge("cortex_gguf_library_entries", "Entries of the library at the last scan", ["format", "state"])
