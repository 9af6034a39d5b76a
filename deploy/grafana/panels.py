"""What a Grafana board is made of: rows of panels, and the queries that come up again and again."""

from dataclasses import dataclass

RATE = "[$__rate_interval]"
MODEL = 'model=~"$model"'


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture. `queries` are (PromQL, legend)."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    about: str = ""
    kind: str = "timeseries"
    stacked: bool = False
    red_above: float | None = None


@dataclass(frozen=True, slots=True)
class Board:
    """One page: its panels by row."""

    uid: str
    title: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    variables: tuple[tuple[str, str], ...] = ()


def quantiles(metric: str, by: str = "", where: str = "") -> tuple[tuple[str, str], ...]:
    """Median, 95th and 99th percentile of a histogram, by one label or over all."""
    labels = f"le, {by}" if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    matcher = f"{{{where}}}" if where else ""
    return tuple(
        (
            f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{matcher}{RATE})))",
            f"p{round(q * 100)}{legend}",
        )
        for q in (0.5, 0.95, 0.99)
    )


def rate(metric: str, by: str, where: str = "") -> tuple[tuple[str, str], ...]:
    """Increase per second by one label."""
    matcher = f"{{{where}}}" if where else ""
    return ((f"sum by ({by}) (rate({metric}{matcher}{RATE}))", f"{{{{{by}}}}}"),)


def number(title: str, query: str, *, unit: str = "short", about: str = "", red_above: float | None = None) -> Panel:
    """One figure of now."""
    return Panel(title, ((query, ""),), unit, about, kind="stat", red_above=red_above)
