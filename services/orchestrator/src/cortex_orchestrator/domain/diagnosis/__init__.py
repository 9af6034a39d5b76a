"""From the end of an engine to a cause and a remedy. Exit codes say little; the log lines decide."""

import re
from collections.abc import Iterator, Sequence

from cortex_contracts.diagnosis import Diagnosis
from cortex_orchestrator.domain.diagnosis import ending, launch, llamacpp, machine, vllm
from cortex_orchestrator.domain.diagnosis.cause import Cause
from cortex_orchestrator.domain.diagnosis.ending import with_runtime
from cortex_orchestrator.domain.diagnosis.launch import diagnose_launch
from cortex_orchestrator.domain.observed import Exit

__all__ = ["CODES", "diagnose", "diagnose_launch", "with_runtime"]

QUOTE = 300
_CAUSES: tuple[Cause, ...] = (
    *machine.CAUSES,
    *llamacpp.CAUSES,
    *vllm.CAUSES,
    *llamacpp.CATCH_ALL,
    *vllm.CATCH_ALL,
)
CODES = frozenset({cause.code for cause in _CAUSES} | {end.code for end in ending.ALL} | launch.CODES)
"""Every code there is: the label of a metric may take no other value."""

_HARMLESS = re.compile(
    r"^\d+\.\d+\.\d+\.\d+ [IWD] "  # llama-server: time since the start, level
    r"|^(?:\([^)]*\) )?(?:INFO|WARNING|DEBUG) \d\d-\d\d "  # vLLM: process, level
    r"|Received request |\"(?:GET|POST) /|common_fit_params|fitting params to free memory"
)
"""Lines that say nothing of a failure, and those that may hold a user's words."""
_PREFIX = re.compile(
    r"^\d+\.\d+\.\d+\.\d+ [A-Z] +(?:srv +|cmn +)?|^(?:\([^)]*\) )?(?:ERROR \d\d-\d\d \S+ \[[^\]]*\] )?(?: *Value error, )?"
)
_SECRET = re.compile(r"\bhf_[A-Za-z0-9]{6,}|(?<=Bearer )\S+")


def diagnose(end: Exit, log_tail: Sequence[str]) -> Diagnosis | None:
    """The most telling cause, or None when nothing is recognised. The message quotes the engine's own line."""
    if end.oom_killed:
        return ending.OOM_KILLED
    lines = [line for line in reversed(log_tail) if not _HARMLESS.search(line)]
    found = next(_matches(lines), None)
    return found if found is not None else ending.by_ending(end.code)


def _matches(lines: Sequence[str]) -> Iterator[Diagnosis]:
    for cause in _CAUSES:
        for line in lines:
            match = cause.expression.search(line)
            if match is not None:
                yield _told(cause, match, line)


def _told(cause: Cause, match: re.Match[str], line: str) -> Diagnosis:
    values = {name: value[:QUOTE] for name, value in match.groupdict(default="").items()}
    quoted = _SECRET.sub("***", _PREFIX.sub("", line).strip())[:QUOTE]
    message = _SECRET.sub("***", cause.message.format_map(values))
    return Diagnosis(code=cause.code, message=f"{message} It said: {quoted}", fix=cause.fix.format_map(values))
