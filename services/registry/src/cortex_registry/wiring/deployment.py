"""Backups: routes, and the task that makes them."""

import re
from importlib.metadata import version
from pathlib import Path
from typing import cast

from pydantic import JsonValue, SecretStr

from cortex_kit.secrets import key_fingerprint
from cortex_registry.adapters.deployment_jobs import PostgresJobs
from cortex_registry.adapters.dump import PostgresDumps
from cortex_registry.adapters.export_folder import ExportRoot
from cortex_registry.adapters.model_files import ModelFiles
from cortex_registry.entrypoints.routes.deployment import DeploymentRoutes
from cortex_registry.handlers.deployment import Deployment
from cortex_registry.handlers.deployment_runner import JobRunner, RunnerTiming
from cortex_registry.handlers.deployment_work import Identity, Sources, Work
from cortex_registry.handlers.models import ModelService
from cortex_registry.handlers.portable import PortableService
from cortex_registry.settings import Settings
from cortex_registry.wiring.core import Core, Part
from cortex_registry.wiring.models import model_editor

_SIGN_IN = re.compile(r"(?<=://)[^/@\s]+@")


def deployment_part(core: Core, models: ModelService) -> Part:
    """A registry without CORTEX_EXPORT_DIR answers, and leaves the jobs to others."""
    settings = core.settings
    jobs = PostgresJobs(core.database)
    backups = ExportRoot(settings.export_dir)
    files = ModelFiles(settings.models_dir)
    portable = PortableService(model_editor(core), models)
    dumps = PostgresDumps(core.database, timeout_s=settings.backup_timeout_s)
    keys = (settings.secret_key, *settings.secret_keys_old)
    identity = Identity(
        version("cortex-registry"), tuple(key_fingerprint(key) for key in keys), plain_settings(settings)
    )
    work = Work(Sources(dumps, backups, portable, files), identity, core.clock)
    timing = RunnerTiming(settings.backup_poll_s, settings.backup_lost_after_s, settings.backup_timeout_s)
    runner = JobRunner(jobs, work, settings.instance, timing)
    deployment = Deployment(jobs, backups, files, work, clock=core.clock, hint=runner.hint)
    tasks = {"deployment-jobs": runner.run} if settings.export_dir is not None else {}
    return Part(routers=(DeploymentRoutes(deployment).router(),), tasks=tasks)


def plain_settings(settings: Settings) -> dict[str, JsonValue]:
    """What an administrator has set, for a backup: nothing that is a secret or holds one."""
    found: dict[str, JsonValue] = {}
    for name, value in settings:
        if isinstance(value, SecretStr) or name == "secret_keys_old":
            continue
        if isinstance(value, tuple):
            found[name] = [_SIGN_IN.sub("***@", str(one)) for one in cast("tuple[object, ...]", value)]
        elif isinstance(value, str | Path):
            found[name] = _SIGN_IN.sub("***@", str(value))
        elif isinstance(value, int | float | bool) or value is None:
            found[name] = value
    return found
