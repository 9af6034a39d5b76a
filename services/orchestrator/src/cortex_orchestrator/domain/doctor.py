"""Judges what was found on a node. Sizes in bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cortex_contracts.doctor import CheckV1, CheckVerdict

GIB = 1024**3
DISK_WARNING = 20 * GIB
DISK_FAILED = 2 * GIB
MEMORY_WARNING = 2 * GIB
OLDEST_DOCKER = (20, 10)
MODEL_SUFFIXES = (".gguf", ".safetensors")


@dataclass(frozen=True, slots=True)
class DockerFacts:
    """What a Docker engine says of itself; `images` maps the configured images to whether they are there."""

    version: str
    runtimes: tuple[str, ...]
    images: Mapping[str, bool]


@dataclass(frozen=True, slots=True)
class Disk:
    """A folder and the file system it lies on."""

    purpose: str
    path: str
    free: int
    total: int


def ok(name: str, found: str) -> CheckV1:
    return CheckV1(name=name, verdict=CheckVerdict.OK, found=found)


def warning(name: str, found: str, fix: str) -> CheckV1:
    return CheckV1(name=name, verdict=CheckVerdict.WARNING, found=found, fix=fix)


def failed(name: str, found: str, fix: str) -> CheckV1:
    return CheckV1(name=name, verdict=CheckVerdict.FAILED, found=found, fix=fix)


def judge_docker(facts: DockerFacts, *, gpus: int, offline: bool) -> tuple[CheckV1, ...]:
    """Version, NVIDIA runtime and images of a Docker engine."""
    return (_version(facts.version), _nvidia(facts.runtimes, gpus), *_images(facts.images, offline=offline))


def _version(version: str) -> CheckV1:
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers and numbers < OLDEST_DOCKER:
        return failed("docker", f"Docker {version}", "Install Docker Engine 20.10 or newer.")
    return ok("docker", f"Docker {version}")


def _nvidia(runtimes: Sequence[str], gpus: int) -> CheckV1:
    installed = "nvidia" in runtimes
    if gpus and not installed:
        fix = (
            "Install the NVIDIA Container Toolkit, run `nvidia-ctk runtime configure --runtime=docker`, restart Docker."
        )
        return failed("nvidia runtime", f"{gpus} GPUs, but Docker cannot hand them to containers", fix)
    return ok("nvidia runtime", "installed" if installed else "not installed, and no GPU needs it")


def _images(images: Mapping[str, bool], *, offline: bool) -> tuple[CheckV1, ...]:
    checks: list[CheckV1] = []
    for image, there in images.items():
        if there:
            checks.append(ok("image", f"{image} is here"))
        elif offline:
            fix = f"docker pull {image} elsewhere, docker save, docker load here; or switch CORTEX_OFFLINE off."
            checks.append(failed("image", f"{image} is missing, and CORTEX_OFFLINE forbids pulling it", fix))
        else:
            fix = f"docker pull {image} now, so that the first start need not wait for it."
            checks.append(warning("image", f"{image} will be pulled at the first start", fix))
    return tuple(checks)


def judge_program(engine: str, path: str | None) -> CheckV1:
    """An engine's program of the process runtime."""
    if path is None:
        fix = f"Install it, or name it in CORTEX_ORCHESTRATOR_{'VLLM' if engine == 'vllm' else 'LLAMA_SERVER'}."
        return warning("program", f"no program for {engine} models on this host", fix)
    return ok("program", f"{engine}: {path}")


def judge_gpus(names: Sequence[str]) -> CheckV1:
    """GPUs that NVML shows; none is a way to live, too."""
    return ok("gpus", f"{len(names)}: {', '.join(names)}" if names else "none seen: models run on the CPU")


def judge_disk(disk: Disk) -> CheckV1:
    """Room for models and images."""
    found = f"{disk.path}: {disk.free / GIB:.1f} of {disk.total / GIB:.1f} GiB free"
    fix = "Free space: docker system df and docker image prune show and remove what is unused."
    if disk.free < DISK_FAILED:
        return failed(disk.purpose, found, fix)
    return warning(disk.purpose, found, fix) if disk.free < DISK_WARNING else ok(disk.purpose, found)


def judge_memory(available: int, total: int) -> CheckV1:
    """Host memory."""
    found = f"{available / GIB:.1f} of {total / GIB:.1f} GiB available"
    if available < MEMORY_WARNING:
        return warning("memory", found, "Stop models that nobody uses, or give the host more memory.")
    return ok("memory", found)


def judge_models(path: str | None, files: int | None) -> CheckV1:
    """The models folder; `files` is None when it cannot be read."""
    if path is None:
        return warning("models folder", "CORTEX_MODELS_DIR is not set", "Set it to the folder that holds your models.")
    if files is None:
        fix = "Make it, and let the services read it: in Compose they run as uid 10001."
        return failed("models folder", f"{path} cannot be read", fix)
    if files == 0:
        return warning("models folder", f"{path} holds no model", "Put a GGUF file or a model folder there.")
    return ok("models folder", f"{path}: {files} model files")
