"""Which route a request takes: by method and path, at once where the path has no parameters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from gateway.http.manner import OWN
from gateway.http.routes import Route, nowhere

NONE: Mapping[str, str] = {}


class Router:
    """The routes of one door, and what answers where there is none."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        self._fixed = {(method, route.path): route for route in routes if not route.parameters for method in route.methods}
        self._open: defaultdict[tuple[str, str], list[Route]] = defaultdict(list)
        for route in routes:
            for method in route.methods if route.parameters else ():
                self._open[method, _begins(route.path)].append(route)
        self._nowhere = nowhere(routes)
        manners = {_begins(route.path): route.manner for route in routes if route.manner is not OWN}
        self._areas = {area: nowhere(routes, manner) for area, manner in manners.items()}

    def find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]]:
        """The route and the parameters in `path`, which is as it was sent: quoted, without the query."""
        if (route := self._fixed.get((method, path))) is not None:
            return route, NONE
        for route in self._open.get((method, _begins(path)), ()):
            if (named := route.named(path)) is not None:
                return route, named
        return self._areas.get(_begins(path), self._nowhere), NONE


def _begins(path: str) -> str:
    return path[: path.find("/", 1)]
