"""Settings of the GGUF inspector: environment variables `CORTEX_INSPECTOR_*`."""

from pydantic import Field

from cortex_gguf_inspector.library.tree import ScanBounds
from cortex_gguf_inspector.limits import MIB, Limits
from cortex_gguf_inspector.merge.jobs import MergeSettings
from cortex_gguf_inspector.paths import parse_client_path
from cortex_kit.settings import ServiceSettings


class Settings(ServiceSettings, service="inspector"):
    """What an operator may change. The limits bound what a hostile file can cost."""

    port: int = Field(default=8084, ge=0, le=65535)
    workers: int = Field(default=4, ge=1, le=64)
    """Files read at the same time."""
    time_budget_s: float = Field(default=5.0, gt=0)
    """Longest reading of one model's headers."""
    max_header_bytes: int = Field(default=256 * MIB, ge=1024)
    max_metadata_entries: int = Field(default=65_536, ge=1)
    max_tensors: int = Field(default=65_536, ge=1)
    max_array_elements: int = Field(default=16_000_000, ge=1)
    max_array_strings: int = Field(default=2_000_000, ge=1)
    max_string_bytes: int = Field(default=MIB, ge=1024)
    max_split_parts: int = Field(default=1_024, ge=1, le=65_535)

    scan_interval_s: float = Field(default=15.0, ge=1)
    """Time between two looks at the models directory; only changed files are read."""
    scan_max_entries: int = Field(default=100_000, ge=1)
    scan_max_depth: int = Field(default=8, ge=0, le=64)
    scan_time_budget_s: float = Field(default=30.0, gt=0)
    """Longest scan; what it did not reach is left to the next one."""
    merge_folder: str = ""
    """Folder below the models directory that merged files go to, by content identity; empty: beside their parts."""
    merge_check: bool = True
    """Read a merged file back and compare it with its parts before it gets its name."""
    verify_timeout_s: float = Field(default=3600.0, gt=0)

    def bounds(self) -> ScanBounds:
        """The bounds of a scan."""
        return ScanBounds(entries=self.scan_max_entries, depth=self.scan_max_depth, time_s=self.scan_time_budget_s)

    def merges(self) -> MergeSettings:
        """Where and how to merge."""
        cache = parse_client_path(self.merge_folder) if self.merge_folder else None
        return MergeSettings(cache=cache, limits=self.limits(), check=self.merge_check)

    def limits(self) -> Limits:
        """The reader's limits."""
        return Limits(
            metadata_entries=self.max_metadata_entries,
            tensors=self.max_tensors,
            header_bytes=self.max_header_bytes,
            array_elements=self.max_array_elements,
            array_strings=self.max_array_strings,
            kept_string_bytes=self.max_string_bytes,
            split_parts=self.max_split_parts,
            time_budget_s=self.time_budget_s,
        )
