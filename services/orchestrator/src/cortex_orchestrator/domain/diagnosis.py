"""From the end of an engine to a cause and a remedy. Exit codes say little; the log lines decide."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cortex_contracts.events import Diagnosis
from cortex_orchestrator.domain.observed import Exit


@dataclass(frozen=True, slots=True)
class _Pattern:
    expression: re.Pattern[str]
    code: str
    message: str
    fix: str


def _pattern(expression: str, code: str, message: str, fix: str) -> _Pattern:
    return _Pattern(re.compile(expression, re.IGNORECASE), code, message, fix)


_PATTERNS = (
    _pattern(
        r"couldn't bind|address already in use|failed to bind",
        "port_in_use",
        "The port of the engine was taken by somebody else.",
        "Nothing: the next attempt takes another port.",
    ),
    _pattern(
        r"invalid argument:|unrecognized arguments|error while handling argument|argument has been removed",
        "bad_argument",
        "The engine refused an argument.",
        "Correct the model's options or extra_args; this build may not know the option.",
    ),
    _pattern(
        r"out of memory|cudaMalloc failed|ErrorOutOfDeviceMemory|failed to allocate|CUDA error: out of memory",
        "out_of_memory",
        "The engine could not allocate the memory it needs.",
        "Lower context_size, parallel_slots or ngl, or give the model more memory.",
    ),
    _pattern(
        r"failed to open .*permission denied",
        "file_unreadable",
        "The engine may not read the model's file.",
        "Make the file and its folders readable for others (chmod -R o+rX): engines in containers run as another user.",
    ),
    _pattern(
        r"failed to open GGUF|no such file or directory|failed to load GGUF split|does not exist",
        "file_missing",
        "A file of the model is not there.",
        "Check local_path and that every part of the model is in the models folder.",
    ),
    _pattern(
        r"requires flash_attn",
        "bad_argument",
        "A quantized V cache needs flash attention.",
        "Turn flash_attention on or leave cache_type_v out.",
    ),
    _pattern(
        r"corrupted or incomplete|not within the file bounds",
        "file_corrupt",
        "The model file is damaged or was not copied whole.",
        "Copy or download the file again; `cortex gguf verify` tells which part is damaged.",
    ),
    _pattern(
        r"error loading model",
        "load_failed",
        "The engine could not load the model.",
        "Check that the file is whole and that this engine build supports its architecture.",
    ),
    _pattern(
        r"failed to load model|exiting due to model loading error|not a valid JSON file",
        "load_failed",
        "The engine could not load the model.",
        "Check that the file is whole and that this engine build supports its architecture.",
    ),
)


def diagnose(end: Exit, log_tail: Sequence[str]) -> Diagnosis | None:
    """The most telling cause, or None when nothing is recognised. The message quotes the engine's own line."""
    if end.oom_killed:
        return Diagnosis(
            code="oom_killed",
            message="The kernel killed the engine because memory ran out.",
            fix="Lower context_size or cache_ram_mib, raise the memory limit, or move other models away.",
        )
    for pattern in _PATTERNS:
        for line in reversed(log_tail):
            if pattern.expression.search(line):
                quoted = f"{pattern.message} It said: {line.strip()[:300]}"
                return Diagnosis(code=pattern.code, message=quoted, fix=pattern.fix)
    if end.code == 137:
        return Diagnosis(
            code="killed",
            message="The engine was killed by SIGKILL.",
            fix="Find out who killed it; the engine itself gave no reason.",
        )
    return None
