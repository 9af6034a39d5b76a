"""The models that may answer in place of one that cannot."""

from collections.abc import Callable

from cortex_gateway.domain.routing import Route, RoutingTable

MAX_CANDIDATES = 8


def candidates(table: RoutingTable, first: Route, usable: Callable[[Route], bool]) -> tuple[Route, ...]:
    """The model itself, then its fallbacks in order, then theirs; every model once, so that there are no loops.

    A fallback that is unknown, of another task or not `usable` is left out, and so are its own fallbacks.
    """
    found = {first.model.id: first}
    queue = [first]
    while queue and len(found) < MAX_CANDIDATES:
        for name in queue.pop(0).model.fallbacks:
            route = table.find(name)
            if route is None or route.model.id in found or route.task is not first.task or not usable(route):
                continue
            found[route.model.id] = route
            queue.append(route)
    return tuple(found.values())[:MAX_CANDIDATES]
