"""What each service may do on NATS, derived from what it writes, reads, consumes and answers.

`python -m cortex_contracts.permissions` prints the users of deploy/nats/users.conf. Subjects of the JetStream API:
https://docs.nats.io/reference/reference-protocols/nats_api_reference
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass

from cortex_contracts import subjects
from cortex_contracts.streams import (
    BUDGETS,
    CONSUMERS,
    DEAD_LETTERS,
    GGUF,
    HEALTH_SUSPECTED,
    KEYS,
    LEASES,
    LIMITS,
    MODELS,
    NODES,
    ORCHESTRATOR_DEMANDED,
    REGISTRY_EVENTS,
    REGISTRY_USAGE,
    REPLICAS,
    VERDICTS,
    BucketSpec,
    ConsumerSpec,
)

OPERATOR = "operator"
"""The user of whoever only listens to events."""


@dataclass(frozen=True, slots=True)
class Access:
    """What one service does on the bus."""

    service: str
    publishes: tuple[str, ...] = ()
    writes: tuple[BucketSpec, ...] = ()
    reads: tuple[BucketSpec, ...] = ()
    consumes: tuple[ConsumerSpec, ...] = ()
    answers: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    leases: bool = True
    provisions: bool = False
    """Creates and updates streams, buckets and durables: the whole JetStream API."""


COUNTERS = (
    *subjects.LIMIT_SUBJECTS,
    *subjects.BUDGET_SUBJECTS,
    f"$JS.API.DIRECT.GET.{LIMITS}",
    f"$JS.API.DIRECT.GET.{BUDGETS}",
    f"$JS.API.STREAM.INFO.{LIMITS}",
)
"""To add to the counters of limits and to read them."""

ACCESS: tuple[Access, ...] = (
    Access(
        "registry",
        publishes=("model.>", "key.>", "org.>", "user.>", "recipe.>", "webhook.>", *subjects.BUDGET_SUBJECTS),
        writes=(MODELS, KEYS),
        reads=(MODELS, KEYS, REPLICAS, VERDICTS, NODES, GGUF),
        consumes=(REGISTRY_USAGE, REGISTRY_EVENTS, DEAD_LETTERS),
        asks=("rpc.gguf.>", "rpc.orchestrator.>", "rpc.health.>"),
        provisions=True,
    ),
    Access(
        "orchestrator",
        publishes=("container.>", "placement.>", "node.>", "_INBOX_registry.>"),
        writes=(REPLICAS, NODES),
        reads=(MODELS, REPLICAS, VERDICTS, NODES),
        consumes=(ORCHESTRATOR_DEMANDED,),
        answers=("rpc.orchestrator.>",),
        asks=(subjects.RPC_GGUF_ESTIMATE, subjects.RPC_GGUF_INSPECT, subjects.RPC_GGUF_RECOMMEND),
    ),
    Access(
        "health",
        publishes=("upstream.healthy", "upstream.unhealthy"),
        writes=(VERDICTS,),
        reads=(MODELS, REPLICAS, VERDICTS),
        consumes=(HEALTH_SUSPECTED,),
        answers=("rpc.health.>",),
        asks=(subjects.RPC_HEALTH_PROBE,),
    ),
    Access(
        "gateway",
        publishes=("usage.recorded", "model.demanded", "upstream.suspected", *COUNTERS),
        reads=(MODELS, KEYS, REPLICAS, VERDICTS),
        answers=("rpc.gateway.>",),
        asks=(subjects.RPC_GATEWAY_CANCEL,),
        leases=False,
    ),
    Access("gguf-inspector", publishes=("gguf.>",), writes=(GGUF,), reads=(GGUF,), answers=("rpc.gguf.>",)),
)


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects a user may publish to and subscribe to."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    responses: bool = False
    """May answer whatever was asked of it."""


def inbox_prefix(user: str) -> str:
    """Inboxes of a user, which no other user may listen to."""
    return f"_INBOX_{user}"


def permissions(access: Access) -> Permissions:
    """The narrowest permissions that let a service do its work."""
    publish: list[str] = [*access.publishes, *access.asks]
    for bucket in access.writes + ((LEASES,) if access.leases else ()):
        publish += [f"$KV.{bucket.name}.>", *_reading(bucket)]
    for bucket in access.reads:
        publish += _reading(bucket)
    for consumer in access.consumes:
        name = f"{consumer.stream}.{consumer.durable}"
        publish += [
            f"$JS.API.CONSUMER.INFO.{name}",
            f"$JS.API.CONSUMER.MSG.NEXT.{name}",
            f"$JS.ACK.{name}.>",
            subjects.dead_letter(consumer.durable),
        ]
    if access.provisions:
        publish += ["$JS.API.>", "dlq.>"]
    subscribe = [f"{inbox_prefix(access.service)}.>", *access.answers]
    return Permissions(tuple(dict.fromkeys(publish)), tuple(subscribe), responses=bool(access.answers))


def _reading(bucket: BucketSpec) -> Iterable[str]:
    stream = f"KV_{bucket.name}"
    return (
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.DIRECT.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}.>",
        f"$JS.API.STREAM.MSG.GET.{stream}",
        f"$JS.API.CONSUMER.CREATE.{stream}",
        f"$JS.API.CONSUMER.CREATE.{stream}.>",
        f"$JS.API.CONSUMER.INFO.{stream}.*",
        f"$JS.API.CONSUMER.DELETE.{stream}.*",
        f"$JS.FC.{stream}.>",
    )


def operator_permissions() -> Permissions:
    """Listen to what happens, live; no inbox, no history, no word."""
    return Permissions(publish=(), subscribe=subjects.EVENT_SUBJECTS)


def render_users() -> str:
    """The `users` of a NATS server's configuration. Passwords come from its environment: `$NATS_<USER>_PASSWORD`."""
    users = [(access.service, permissions(access)) for access in ACCESS] + [(OPERATOR, operator_permissions())]
    return "\n".join(
        ["# Made by `make docs` from cortex_contracts.permissions.", "users: ["]
        + [_user(name, allowed) for name, allowed in users]
        + ["]", ""]
    )


def password_variable(user: str) -> str:
    """Name of the environment variable that holds a user's password."""
    return f"NATS_{user.upper().replace('-', '_')}_PASSWORD"


def _user(name: str, allowed: Permissions) -> str:
    publish = f"allow: {_list(allowed.publish)}" if allowed.publish else 'deny: [">"]'
    responses = "\n      allow_responses: true" if allowed.responses else ""
    return f"""\
  {{
    user: "{name}", password: ${password_variable(name)}
    permissions: {{
      publish: {{ {publish} }}
      subscribe: {{ allow: {_list(allowed.subscribe)} }}{responses}
    }}
  }}"""


def _list(names: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


def consumers_without_owner() -> tuple[str, ...]:
    """Durables that no service consumes."""
    owned = {consumer.durable for access in ACCESS for consumer in access.consumes}
    return tuple(spec.durable for spec in CONSUMERS if spec.durable not in owned)


if __name__ == "__main__":
    sys.stdout.write(render_users())
