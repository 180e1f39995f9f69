"""``mtlkit plugins``: exit code 1 when ``--check`` finds something."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from mtlkit import help, registry
from mtlkit.commands.parser import Parser
from mtlkit.errors import ConfigError
from mtlkit.registry import KINDS


def run(argv: Sequence[str]) -> int:
    """Run it; returns the exit code."""
    parser = Parser("plugins")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--check", action="store_true", help="import every component too")
    args = parser.parse_args(argv)
    found = registry.load()
    problems = [str(problem) for problem in found.problems]
    if args.check:
        problems += _broken(found)
    if args.json:
        print(json.dumps({"plugins": _plugins(found), "problems": problems}, indent=2))
    else:
        print(help.plugins(_plugins(found), problems))
    return 1 if args.check and problems else 0


def _plugins(found: registry.Registry) -> list[dict[str, Any]]:
    return [
        {
            "name": plugin.name,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "components": {
                kind: names
                for kind in KINDS
                if (names := [c.name for c in found.components(kind) if c.plugin == plugin.name])
            },
            "hooks": found.hooks(plugin),
        }
        for plugin in found.plugins
    ]


def _broken(found: registry.Registry) -> Iterator[str]:
    for component in found.components():
        try:
            component.load()
        except ConfigError as error:
            yield str(error)
