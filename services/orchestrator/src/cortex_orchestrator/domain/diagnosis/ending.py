"""What the way an engine ended says when its log says nothing: exit codes, signals, the memory limit."""

from types import MappingProxyType

from cortex_contracts.diagnosis import Diagnosis
from cortex_orchestrator.domain.observed import Exit

OOM_KILLED = Diagnosis(
    code="oom_killed",
    message="The kernel killed the engine because memory ran out.",
    fix="Lower context_size or cache_ram_mib, raise the memory limit, or move other models away.",
)
RUNTIME_RESTARTED = Diagnosis(
    code="runtime_restarted",
    message="The container engine of the node was stopped or restarted, and the model's engine ended with it.",
    fix="Nothing: it is started again. With live-restore in the engine's configuration containers outlive it.",
)
_WITH_RUNTIME = frozenset({None, 0, 130, 137, 143, 255})
"""Exit codes of an engine that was ended from outside."""
_SIGNALS = MappingProxyType(
    {
        4: Diagnosis(
            code="illegal_instruction",
            message="The engine used an instruction that this CPU does not have.",
            fix="Use a build for this CPU: the official images choose at run time, a build from source may not.",
        ),
        6: Diagnosis(
            code="aborted",
            message="The engine gave up after an internal error.",
            fix="Look at the last lines of its log; a newer build may have it mended.",
        ),
        7: Diagnosis(
            code="bus_error",
            message="The engine lost access to memory: shared memory was too small, or the model file shrank.",
            fix="Give it more shared memory, and do not change a model file while it is served.",
        ),
        9: Diagnosis(
            code="killed",
            message="The engine was killed by SIGKILL.",
            fix="Most often the host ran out of memory: see its kernel log. Lower context_size or move models away.",
        ),
        11: Diagnosis(
            code="segmentation_fault",
            message="The engine crashed (segmentation fault).",
            fix="Try another build (engine_image), or turn off what is unusual: repack, flash_attention, speculation.",
        ),
        15: Diagnosis(
            code="terminated",
            message="Somebody else stopped the engine (SIGTERM).",
            fix="Find out who stopped it; it is started again.",
        ),
    }
)
_CODES = MappingProxyType(
    {
        0: Diagnosis(
            code="ended_by_itself",
            message="The engine ended without an error.",
            fix="Take out of extra_args what makes it print something and leave.",
        ),
        126: Diagnosis(
            code="not_executable",
            message="The engine's program cannot be executed.",
            fix="Check its rights and that it was built for this kind of machine.",
        ),
        127: Diagnosis(
            code="program_missing",
            message="The engine's program is not there.",
            fix="Check engine_image, or the path that the orchestrator was given.",
        ),
    }
)
ALL = (OOM_KILLED, RUNTIME_RESTARTED, *_SIGNALS.values(), *_CODES.values())


def with_runtime(end: Exit) -> Diagnosis | None:
    """Of an engine that ended while the runtime was away."""
    return RUNTIME_RESTARTED if end.code in _WITH_RUNTIME and not end.oom_killed else None


def by_ending(code: int | None) -> Diagnosis | None:
    """From an exit code; a signal is told as its negative number or as 128 and the number."""
    if code is None:
        return None
    if code in _CODES:
        return _CODES[code]
    return _SIGNALS.get(-code if code < 0 else code - 128)
