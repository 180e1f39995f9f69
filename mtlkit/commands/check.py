"""``mtlkit check NAME``: exit code 1 when a check fails."""

from collections.abc import Sequence

from mtlkit import registry
from mtlkit.commands.parser import Parser, kind_of
from mtlkit.errors import ConfigError
from mtlkit.registry import KINDS


def run(argv: Sequence[str]) -> int:
    """Run it; returns the exit code."""
    parser = Parser("check")
    parser.usage = "mtlkit check NAME [--kind KIND] [--OPTION VALUE ...]"
    parser.epilog = "Options are the component's own; those by task name one, two and three."
    parser.add_argument("name", metavar="NAME", help="of a component, or of a plugin for all of it")
    parser.add_argument("--kind", metavar="KIND", help=f"one of {', '.join(KINDS)}")
    args, words = parser.parse_known_args(argv)
    kind = None if args.kind is None else kind_of(args.kind)
    from mtlkit.testing import conformance

    found = conformance.find(args.name, kind)
    if words and len(found) > 1:
        several = ", ".join(f"{c.kind}/{c.name}" for c in found)
        raise ConfigError(f"options are for one component, but '{args.name}' is {several}")
    return max([_check(component, words, alone=len(found) == 1) for component in found])


def _check(component: registry.Component, words: Sequence[str], *, alone: bool) -> int:
    from mtlkit.testing import conformance
    from mtlkit.testing.component import read_options, required

    cls = component.load()
    if not alone and required(cls):
        print(f"{component.kind} {component.name} is not checked: give it {required(cls)}, alone")
        return 0
    options = read_options(cls, words)
    subject = conformance.subject(component.kind, component.qualified, options)
    print(f"{component.kind} {component.name}, from {component.source}")
    failed = False
    for outcome in conformance.outcomes(subject):
        failed = failed or outcome.status == "failed"
        print(f"  {outcome.status:14}  " + str(outcome).replace("\n", "\n" + " " * 18), flush=True)
    return int(failed)
