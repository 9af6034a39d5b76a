"""Remedies for what goes wrong before an engine says a word: its image, its runtime, its node."""

import re
from types import MappingProxyType

from cortex_contracts.diagnosis import Diagnosis

_FIXES = MappingProxyType(
    {
        "image_missing": "Correct engine_image, or load the image on the node (docker load); offline nodes pull nothing.",
        "image_pull_denied": "Log the node in to the registry (docker login), or correct engine_image.",
        "image_pull_failed": "Check the image's name and the node's network; it is tried again.",
        "disk_full": "Free space in the Docker data folder (docker system df), then it is tried again.",
        "gpu_runtime_missing": "Install the NVIDIA container toolkit on the node, or use placement for CPU only.",
        "engine_missing": "Install the engine, or point the orchestrator at its program.",
        "engine_broken": "Use another build of the engine: this one does not even print its options.",
        "engine_start_failed": "Run the engine's program by hand on the node to see why.",
        "engine_unavailable": "Nothing: it is tried again.",
        "runtime_unreachable": "Start the container engine of the node, or correct its address; it is tried again.",
        "port_in_use": "Free the port, or let Cortex choose one.",
        "name_taken": "Remove the other container of this name.",
        "models_dir_missing": "Set CORTEX_MODELS_DIR on the node.",
        "secret_unreadable": "Give the orchestrator the CORTEX_SECRET_KEY of the registry, or set hf_token again.",
        "not_created": "Nothing: it is created anew.",
    }
)
_NARROWER = (
    ("image_pull_denied", re.compile(r"denied|unauthorized|authentication required|forbidden", re.IGNORECASE)),
    ("disk_full", re.compile(r"no space left|disk quota", re.IGNORECASE)),
    ("image_missing", re.compile(r"not found|manifest unknown|no such image", re.IGNORECASE)),
    ("gpu_runtime_missing", re.compile(r"could not select device driver|nvidia-container|unknown.*runtime.*nvidia", re.IGNORECASE)),
    ("port_in_use", re.compile(r"port is already allocated|address already in use", re.IGNORECASE)),
)  # fmt: skip
_GENERAL = frozenset({"image_pull_failed", "engine_start_failed", "runtime_error", "runtime_unreachable"})
CODES = frozenset(_FIXES)


def diagnose_launch(code: str, message: str) -> Diagnosis:
    """The diagnosis of an error of the catalog or the runtime: its own words, a narrower code if they tell one, a fix."""
    if code in _GENERAL:
        code = next((narrower for narrower, expression in _NARROWER if expression.search(message)), code)
    return Diagnosis(code=code, message=message, fix=_FIXES.get(code, ""))
