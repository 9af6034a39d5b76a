"""What users do with the official clients, as data: each scenario gives an outcome that can be compared.

The same list runs against an engine and against a gateway before that engine. Outcomes leave out what no two requests
share: ids, times, and how much of a prompt came from a cache.
"""

from collections.abc import Callable, Iterable, Mapping

from cortex_testing.client_scenarios import chats, embeddings, messages, refusals, responses, texts
from cortex_testing.client_scenarios.clients import Clients, Outcome

__all__ = ["SCENARIOS", "Clients", "Outcome", "differences"]

SCENARIOS: Mapping[str, Callable[[Clients], Outcome]] = {
    scenario.__name__: scenario
    for kind in (chats, texts, embeddings, responses, messages, refusals)
    for scenario in kind.ALL
}


def differences(direct: Outcome, through: Outcome) -> dict[str, tuple[object, object]]:
    """What differs, member by member: what the engine gave, what the gateway gave."""
    names: Iterable[str] = direct.keys() | through.keys()
    return {
        name: (direct.get(name), through.get(name)) for name in sorted(names) if direct.get(name) != through.get(name)
    }
