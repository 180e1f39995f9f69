"""The command line: one line for every mistake, and an exit code for every outcome.

0 ok, 1 the run failed, 2 usage or configuration, 3 a plugin failed in strict mode, 130 Ctrl-C.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, get_args

import yaml

from mtlkit import __version__, config, help, registry, scaffold, source
from mtlkit.errors import ConfigError, MtlkitError, did_you_mean
from mtlkit.registry import KINDS
from mtlkit.settings import Precision
from mtlkit.source import BARE

Verb = Callable[[Sequence[str]], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors a user can mend are printed."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(help.overview())
        return 0
    if words[0] == "--version":
        print(f"mtlkit {__version__}")
        return 0
    verb, *rest = words
    run = VERBS.get(verb)
    try:
        if run is None:
            raise ConfigError(f"unknown command '{verb}'{did_you_mean(verb, VERBS)}")
        return run(rest)
    except MtlkitError as error:
        _print_error(f"mtlkit {verb}" if run else "mtlkit", error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _print_error(command: str, error: MtlkitError) -> None:
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"{command}: error: {error}", file=sys.stderr)


def train(argv: Sequence[str]) -> int:
    """``mtlkit train``: all options are described by :mod:`mtlkit.help`."""
    asked_for_help, options, own = _split(argv, _TRAIN_FLAGS)
    _check_flags(own)
    with _own_plugins_only("no_plugins" in own):
        if asked_for_help:
            print(help.train(registry.load(), config.chosen(options)))
            return 0
        return _train(options, own)


_TRAIN_FLAGS = ("dry_run", "no_plugins", "num_processes", "print_config")


def _train(options: Sequence[str], own: dict[str, Any]) -> int:
    asked = config.parse(options)
    if "print_config" in own:
        print(yaml.safe_dump(config.to_mapping(asked), sort_keys=False), end="")
        return 0
    from mtlkit import api, launch  # after the configuration was read, because it imports torch

    if "dry_run" in own:
        api.dry_run(asked)
        return 0
    if int(own.get("num_processes", 1)) > 1:
        return launch.launch(options, int(own["num_processes"]))
    launch.check_world()
    api.run_config(asked)
    return 0


def bench(argv: Sequence[str]) -> int:
    """``mtlkit bench``: the options of train, and those in :func:`mtlkit.help.bench`."""
    asked_for_help, options, own = _split(argv, (*_TRAIN_FLAGS, *_ALONE, *_BENCH_VALUES))
    for flag in _TRAIN_FLAGS:
        if flag in own and flag != "no_plugins":
            raise ConfigError(f"--{source.spell(flag)} is for mtlkit train alone")
    _check_flags({key: own[key] for key in (*_TRAIN_FLAGS, *_ALONE) if key in own})
    with _own_plugins_only("no_plugins" in own):
        if asked_for_help:
            print(help.bench())
            return 0
        _bench(options, own, " ".join(["mtlkit bench", *argv]))
    return 0


_BENCH_VALUES = ("balancers", "output", "rounds")
_ALONE = ("predict", "alone")
"""What is compared with networks for one task each."""


def _bench(options: Sequence[str], own: dict[str, Any], command: str) -> None:
    for key in ("balancers", "output"):
        if own.get(key) is BARE:
            raise ConfigError(f"--{key} expects a value, but none was given")
    rounds = _whole("rounds", own.get("rounds", "5"))
    given = [key for key in (*_ALONE, "balancers") if key in own]
    if len(given) > 1:
        raise ConfigError(f"--{given[0]} and --{given[1]} are measured one at a time")
    names = own["balancers"].split(",") if "balancers" in own else None
    for name in names or ():
        registry.load().find("balancer", name)
    asked = config.parse(options)
    from mtlkit import bench as measure  # after the configuration was read, because of torch

    output = Path(own["output"]) if "output" in own else None
    if given and names is None:
        predict = "predict" in own
        measure.bench_alone(asked, predict=predict, rounds=rounds, output=output, command=command)
    else:
        measure.bench(asked, names, rounds=rounds, output=output, command=command)


def _split(argv: Sequence[str], flags: Sequence[str]) -> tuple[bool, list[str], dict[str, Any]]:
    """Whether help is asked for, the words of a configuration, and the values of ``flags``."""
    asked_for_help = any(word in ("-h", "--help") for word in argv)
    pairs = source.tokens([word for word in argv if word not in ("-h", "--help")])
    own = {key: value for key, value in pairs if key in flags}
    options = [word for pair in pairs if pair[0] not in own for word in _words(*pair)]
    return asked_for_help, options, own


def _check_flags(own: dict[str, Any]) -> None:
    for key, value in own.items():
        if key == "num_processes":
            _whole(key, value)
        elif value is not BARE:
            raise ConfigError(f"--{source.spell(key)} takes no value, but got '{value}'")


def _whole(key: str, value: Any) -> int:
    if not isinstance(value, str) or not value.isdecimal() or int(value) < 1:
        got = "no value was given" if value is BARE else f"got '{value}'"
        raise ConfigError(f"--{source.spell(key)} expects a whole number above 0, but {got}")
    return int(value)


def _words(key: str, value: Any) -> list[str]:
    return [f"--{key}"] if value is BARE else [f"--{key}={value}"]


@contextmanager
def _own_plugins_only(wanted: bool) -> Iterator[None]:
    """Leave out third parties here and in the processes that are started."""
    before = os.environ.get("MTLKIT_DISABLE_PLUGINS")
    if wanted:
        os.environ["MTLKIT_DISABLE_PLUGINS"] = f"{before},*" if before else "*"
    try:
        yield
    finally:
        if before is not None:
            os.environ["MTLKIT_DISABLE_PLUGINS"] = before
        elif wanted:
            del os.environ["MTLKIT_DISABLE_PLUGINS"]


class _Parser(argparse.ArgumentParser):
    """argparse for the small commands, with errors of one line."""

    def __init__(self, verb: str) -> None:
        super().__init__(prog=f"mtlkit {verb}", description=_sentence(verb), allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def _sentence(verb: str) -> str:
    text = help.VERBS[verb]
    return f"{text[0].upper()}{text[1:]}."


def evaluate(argv: Sequence[str]) -> int:
    """``mtlkit evaluate RUN``."""
    parser = _Parser("evaluate")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test")
    parser.add_argument("--batch-size", type=_count, metavar="N", help="default: the run's own")
    parser.add_argument("--workers", type=int, metavar="N", help="default: the run's own")
    parser.add_argument("--full-size", action="store_true", help="compare masks, maps and boxes in "
                        "the pixels of each picture, not at the network's size")  # fmt: skip
    args = parser.parse_args(argv)
    from mtlkit import api

    values = api.evaluate_run(
        args.run, args.split, args.batch_size, args.workers, full_size=args.full_size
    )
    if not values:
        raise ConfigError(f"the data of {args.run} has no samples in its {args.split} split")
    width = max(map(len, values))
    print("\n".join(f"{key.ljust(width)}  {value:.4f}" for key, value in values.items()))
    return 0


def predict(argv: Sequence[str]) -> int:
    """``mtlkit predict RUN IMAGE...``."""
    parser = _Parser("predict")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or of a model")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE",
                        help="picture files, and folders of them")  # fmt: skip
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument("--batch-size", type=_count, default=16, metavar="N", help="default 16")
    parser.add_argument("--precision", choices=get_args(Precision), default="no",
                        help="arithmetic of the forward pass (default no)")  # fmt: skip
    _add_switch(parser, "channels-last", True, "keep images in the memory order that convolutions "
                "like best (default true)")  # fmt: skip
    _add_switch(parser, "compile", False, "compile the network with torch.compile (default false)")
    args = parser.parse_args(argv)
    from mtlkit import api

    failed = api.predict_files(
        args.run,
        args.images,
        args.output,
        args.batch_size,
        precision=args.precision,
        channels_last=args.channels_last,
        compile=args.compile,
    )
    return 1 if failed else 0


def _add_switch(parser: _Parser, name: str, default: bool, help: str) -> None:
    """An option of a word or none, as ``mtlkit train`` has them."""
    parser.add_argument(f"--{name}", type=_truth, nargs="?", const=True, default=default,
                        metavar="true|false", help=help)  # fmt: skip


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expects true or false, but got '{text}'")
    return text.lower() == "true"


def list_(argv: Sequence[str]) -> int:
    """``mtlkit list [KIND]``."""
    parser = _Parser("list")
    parser.add_argument("kind", nargs="?", metavar="KIND", help=f"one of {', '.join(KINDS)}")
    kind = parser.parse_args(argv).kind
    print(help.listing(registry.load(), KINDS if kind is None else [_kind(kind)]))
    return 0


def show(argv: Sequence[str]) -> int:
    """``mtlkit show KIND NAME``."""
    parser = _Parser("show")
    parser.add_argument("kind", metavar="KIND", help=f"one of {', '.join(KINDS)}")
    parser.add_argument("name", metavar="NAME", help="as mtlkit list has it")
    args = parser.parse_args(argv)
    print(help.component(registry.load().find(_kind(args.kind), args.name)))
    return 0


def plugins(argv: Sequence[str]) -> int:
    """``mtlkit plugins``: exit code 1 when ``--check`` finds something."""
    parser = _Parser("plugins")
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


def plugin(argv: Sequence[str]) -> int:
    """``mtlkit plugin new NAME --kind KIND``."""
    parser = _Parser("plugin")
    parser.add_argument("new", choices=("new",), help="the only thing to do so far")
    parser.add_argument("name", metavar="NAME", help="of the package and its component")
    parser.add_argument("--kind", required=True, metavar="KIND", help=f"one of {', '.join(KINDS)}")
    parser.add_argument("--output", type=Path, default=Path(), metavar="DIR",
                        help="where to make the folder NAME; default: here")  # fmt: skip
    args = parser.parse_args(argv)
    made = scaffold.create(registry.load(), _kind(args.kind), args.name, args.output)
    home = shlex.quote(str(args.output / args.name))
    print("\n".join([*map(str, made), f"next: pip install -e {home} && pytest {home}"]))
    return 0


def data(argv: Sequence[str]) -> int:
    """``mtlkit data check PATH|NAME``: exit code 1 when anything is bad."""
    if any(word in ("-h", "--help") for word in argv):
        print(help.data())
        return 0
    what, word, *rest = [*argv, "", ""]
    if what != "check" or not word or word.startswith("--"):
        raise ConfigError("say what to check: mtlkit data check PATH|NAME [--data.OPTION VALUE]")
    given = dict(source.tokens([word for word in rest if word]))
    preview = given.pop("preview", None)
    if preview is BARE:
        raise ConfigError("--preview expects the name of a PNG file, but none was given")
    from mtlkit import data_check

    layer = {key: source.Given(value, source.COMMAND_LINE) for key, value in given.items()}
    found = data_check.check(data_check.choose(word, layer))
    print(data_check.describe(found))
    if preview and found.spec:
        data_check.preview(found, Path(preview))
    return 1 if found.problems else 0


def check(argv: Sequence[str]) -> int:
    """``mtlkit check NAME``: exit code 1 when a check fails."""
    parser = _Parser("check")
    parser.usage = "mtlkit check NAME [--kind KIND] [--OPTION VALUE ...]"
    parser.epilog = "Options are the component's own; those by task name one, two and three."
    parser.add_argument("name", metavar="NAME", help="of a component, or of a plugin for all of it")
    parser.add_argument("--kind", metavar="KIND", help=f"one of {', '.join(KINDS)}")
    args, words = parser.parse_known_args(argv)
    kind = None if args.kind is None else _kind(args.kind)
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


def _kind(word: str) -> str:
    """A kind, in the singular or the plural."""
    kind = word.removesuffix("s")
    if kind not in KINDS:
        raise ConfigError(f"unknown kind '{word}'{did_you_mean(word, KINDS)}"
                          f"\n  available: {', '.join(KINDS)}")  # fmt: skip
    return kind


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expects a whole number above 0, but got '{text}'")
    return int(text)


VERBS: dict[str, Verb] = {
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "bench": bench,
    "list": list_,
    "show": show,
    "plugins": plugins,
    "check": check,
    "plugin": plugin,
    "data": data,
}
