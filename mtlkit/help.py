"""Help: what the commands print about themselves and about components, without importing them."""

import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from mtlkit import describe
from mtlkit.config import DEFAULTS, SLOTS
from mtlkit.describe import Option
from mtlkit.registry import KINDS, Component, Registry
from mtlkit.settings import Settings
from mtlkit.source import spell

WIDTH = 100

VERBS = {
    "train": "train several tasks with one network",
    "evaluate": "measure a trained run on a split of its data",
    "report": "a page on one run, or on several compared: mtlkit report RUN...",
    "predict": "predict for picture files with a trained run, or with what was exported of it",
    "export": "write the network of a trained run, or a part of it, as one ONNX or pt2 file",
    "demo": "try a trained run on pictures dropped on a page in the browser",
    "share": "write a trained model with its card, or push it to the Hugging Face Hub",
    "bench": "measure balancers, or one network against one per task, on your network and data",
    "affinity": "which tasks help or hurt each other, in a trained run or while one is trained",
    "list": "the registered components: tasks, heads, backbones, balancers, datasets",
    "show": "what one component does, its options and who brings it",
    "plugins": "the installed plugins and what is wrong with any of them",
    "check": "whether a component keeps its kind's contract, or all that a plugin brings",
    "plugin": "start a package with a component of your own: mtlkit plugin new NAME --kind KIND",
    "data": "what a dataset holds and every bad file in it: mtlkit data check PATH|NAME",
}

_TRAIN = """\
usage: mtlkit train [options]

Trains one network for several tasks, evaluates it on val after every epoch and on test once at the
end, and writes all of it into the folder of the run. For example:

  mtlkit train --tasks seg,cls,bbox
  mtlkit train --tasks seg,species=cls,breed=cls --tasks.breed.target breed --config run.yaml
"""

_CHOICES = [
    ("--tasks IDS", f"what to learn, as ID or ID=NAME, with commas (default {DEFAULTS['tasks']})"),
    ("--backbone NAME", f"the network that all tasks share (default {DEFAULTS['backbone']})"),
    ("--balancer NAME", f"how the tasks' gradients are combined (default {DEFAULTS['balancer']})"),
    ("--data NAME", f"images and labels (default {DEFAULTS['data']})"),
    ("--tasks.ID.head NAME", "the head of one task (default: the one its task names)"),
    ("--config FILE", "read options from YAML; may be repeated, later files win, the command line "
                      "wins over all"),
    ("--print-config", "print all options of this run as YAML, and stop"),
    ("--dry-run", "build everything, say what would be trained, write nothing"),
    ("--num-processes N", "train on N processes of this machine, on GPUs if there are any"),
    ("--no-plugins", "use only the components that come with mtlkit"),
]  # fmt: skip

_BENCH = """\
usage: mtlkit bench [options of mtlkit train] [--balancers A,B,... | --predict | --alone]
                    [--rounds N] [--output FILE]

Measures what an optimiser step costs with each balancer, in time, memory and passes through the
network, against the plain sum of the losses. Or what one network for all tasks costs against one
for each task, when it predicts or when it is trained. Trains nothing. For example:

  mtlkit bench --tasks seg,cls,bbox --backbone mtan --batch-size 8 --balancers cagrad,mgda
  mtlkit bench --tasks seg,cls,bbox --batch-size 8 --predict
"""

_BENCH_OPTIONS = [
    ("--balancers NAMES", "which to measure with their defaults, with commas (default: all that "
                          "can be used); what --balancer names is measured with its own options"),
    ("--predict", "measure forward passes of one network for all tasks, of one for each task alone "
                  "with the same options, and their sum; memory is with the weights"),
    ("--alone", "the same for training steps; memory is with weights and optimiser"),
    ("--rounds N", "how often each is measured, in turn (default 5)"),
    ("--output FILE", "write the numbers, the machine and the versions as JSON"),
]  # fmt: skip

_AFFINITY = """\
usage: mtlkit affinity RUN [--batches N] [--output DIR] [...]
       mtlkit affinity [options of mtlkit train] [--every N] [...]

Measures what a step on one task alone would do to every task's loss, and whether the tasks'
gradients agree: at the best model of a trained run, or over a training, which is exactly the one of
mtlkit train and leaves the same folder. No such step is kept. For example:

  mtlkit affinity runs/NAME --output answers
  mtlkit affinity --tasks seg,cls,bbox --backbone mtan --backbone.width 16 --attention
"""

_AFFINITY_OPTIONS = [
    ("RUN", "folder of a run"),
    ("--batches N", "of a trained run: training steps' worth of images to measure on (default 20)"),
    ("--output DIR", "of a trained run: write affinity.json, affinity.png and, with --attention, "
                     "attention.png; a training writes them into its own folder"),
    ("--every N", "while training: steps between two looks (default 10); a look costs about as "
                  "much as one step for each task"),
    ("--held-out", "compare losses on other images, of val, than those of the step: what carries "
                   "over to new images, which is so much less that it takes many more looks to see "
                   "(default: the same images, as published)"),
    ("--lookahead {gradient,optimizer}", "the step: a plain gradient step with the run's peak "
     "learning rate, which depends on that task alone (default), or while training the optimizer's "
     "own, in which the momentum of all tasks goes on"),
    ("--networks N", "suggest how to split the tasks into at most N networks (default 2)"),
    ("--attention", "look at the tasks' attention masks too, on val (MTAN)"),
]  # fmt: skip


_DATA = """\
usage: mtlkit data check PATH|NAME [--data.OPTION VALUE ...] [--preview FILE.png]

Reads all of a dataset and says how many samples and labels each split has, how often each class
occurs, and every bad file with its reason. Exit code 0 if all is good, else 1. For example:

  mtlkit data check my_pictures --preview look.png
  mtlkit data check oxford-pets --data.root DIR
"""

_DATA_OPTIONS = [
    ("PATH", "a folder of images, masks, labels.csv and boxes, as dataset folder reads it"),
    ("NAME", "a dataset, as mtlkit list dataset has it; mtlkit show dataset NAME has its options"),
    ("--preview FILE.png", "draw the first samples of each split with their labels"),
]  # fmt: skip


def overview() -> str:
    """What ``mtlkit --help`` prints."""
    rows = table(VERBS.items())
    return f"usage: mtlkit COMMAND ...\n\n{rows}\n\nmtlkit COMMAND --help tells more."


def train(registry: Registry, chosen: Mapping[str, Component]) -> str:
    """What ``mtlkit train --help`` prints.

    Args:
        registry: whose components are listed.
        chosen: by slot, the components named on the same command line.
    """
    parts = [_TRAIN, "What the run is made of:", table(_CHOICES), ""]
    for slot, component in chosen.items():
        description = describe.describe(component)
        title = f"Options of {component.kind} '{component.name}': {plain(description.summary)}"
        parts.append(textwrap.fill(title, WIDTH))
        rows = [option_row(option, slot) for option in description.options]
        parts += [table(rows) if rows else "  none", ""]
    parts += ["General options:", table(_settings()), "", "Components:"]
    for kind in KINDS:
        names = textwrap.fill(", ".join(registry.names(kind)) or "none", WIDTH - 14)
        parts.append(
            textwrap.indent(f"{kind}: ".ljust(12) + names.replace("\n", "\n" + " " * 12), "  ")
        )
    slots = " ".join(f"--{slot}.OPTION" for slot in SLOTS)
    parts += [
        "",
        f"A component's own options are {slots}",
        "--tasks.ID.OPTION --tasks.ID.head.OPTION;",
    ]
    parts.append("name it before --help, or ask mtlkit show KIND NAME.")
    return "\n".join(parts)


def bench() -> str:
    """What ``mtlkit bench --help`` prints."""
    return "\n".join([_BENCH, table(_BENCH_OPTIONS), "", "mtlkit train --help tells the others."])


def affinity() -> str:
    """What ``mtlkit affinity --help`` prints."""
    rows = table(_AFFINITY_OPTIONS)
    return "\n".join([_AFFINITY, rows, "", "mtlkit train --help tells the others."])


def data() -> str:
    """What ``mtlkit data --help`` prints."""
    return "\n".join([_DATA, table(_DATA_OPTIONS)])


def listing(registry: Registry, kinds: Iterable[str]) -> str:
    """What ``mtlkit list`` prints."""
    parts = []
    for kind in kinds:
        components = sorted(registry.components(kind), key=registry.shortest)
        rows = [(registry.shortest(c), plain(describe.summary(c))) for c in components]
        none = f"  none; no installed plugin brings a {kind}"
        parts.append(f"{kind}s\n{table(rows) if rows else none}")
    return "\n\n".join(parts)


def component(found: Component) -> str:
    """What ``mtlkit show`` prints."""
    description = describe.describe(found)
    title = f"{found.kind} {found.name}: {plain(description.summary)}"
    parts = [textwrap.fill(title, WIDTH), ""]
    if description.text:
        parts += [plain(description.text), ""]
    rows = [option_row(option, _prefix(found.kind)) for option in description.options]
    parts += ["Options:", table(rows) if rows else "  none", ""]
    for title, text in description.sections.items():
        parts += [f"{title}:", textwrap.indent(plain(text), "  "), ""]
    return "\n".join([*parts, f"From {found.source}, {found.target}"])


def plugins(found: Iterable[Mapping[str, Any]], problems: Iterable[str]) -> str:
    """What ``mtlkit plugins`` prints."""
    parts = []
    for plugin in found:
        parts.append(f"{plugin['name']} ({plugin['distribution']} {plugin['version']})")
        rows = [(f"{kind}s", ", ".join(names)) for kind, names in plugin["components"].items()]
        rows += [("hooks", ", ".join(plugin["hooks"]))] if plugin["hooks"] else []
        parts += [table(rows)] if rows else []
    parts += [] if parts else ["no plugins are installed"]
    return "\n".join([*parts, *(f"problem: {problem}" for problem in problems)])


def option_row(option: Option, prefix: str = "") -> tuple[str, str]:
    """An option as on the command line, with type and default, and its help."""
    name = f"{prefix}.{option.name}" if prefix else option.name
    default = option.default
    words = [option.help.rstrip(".")] if option.help else []
    if default is None:
        words.append("(required)")
    elif default not in ("None", "()"):
        words.append(f"(default {_unquoted(default)})")
    return f"--{spell(name)} {_metavar(option.type)}".rstrip(), plain(" ".join(words))


def table(rows: Iterable[tuple[str, str]], *, indent: int = 2, widest: int = 28) -> str:
    """Two columns; a name too long for its column stands on a line of its own."""
    rows = list(rows)
    column = min(widest, max((len(name) for name, _ in rows), default=0)) + indent + 2
    lines = []
    for name, text in rows:
        body = textwrap.wrap(text, WIDTH - column) or [""]
        head = " " * indent + name
        if len(head) + 2 > column:
            lines.append(head)
        else:
            lines.append(f"{head.ljust(column)}{body.pop(0)}".rstrip())
        lines += [" " * column + line for line in body]
    return "\n".join(lines)


def plain(text: str) -> str:
    """Without the marks of reStructuredText."""
    return re.sub(r":\w+:`~?([^`]*)`", r"\1", text).replace("``", "")


def _prefix(kind: str) -> str:
    slots = {kind: slot for slot, kind in SLOTS.items()}
    return slots.get(kind) or ("tasks.ID.head" if kind == "head" else "tasks.ID")


def _settings() -> list[tuple[str, str]]:
    _, helps = describe.parse_docstring(Settings.__doc__ or "")
    types = get_type_hints(Settings)
    return [
        option_row(Option(f.name, _source(types[f.name]), repr(f.default), helps.get(f.name, "")))
        for f in fields(Settings)
    ]


def _source(hint: object) -> str:
    text = hint.__name__ if isinstance(hint, type) else str(hint)
    return text.replace("typing.", "").replace("collections.abc.", "")


def _metavar(type_: str) -> str:
    """A type's source as a user's word: INT, {a,b}, ..."""
    text = re.sub(r" \| None\b|\bNone \| ", "", type_)
    literal = re.fullmatch(r"Literal\[(.*)\]", text)
    if literal:
        return "{" + re.sub(r"['\" ]", "", literal[1]) + "}"
    if re.match(r"(dict|Mapping)\b", text):
        return "KEY=VALUE,..."
    items = re.match(r"(list|tuple|Sequence)\[(\w+)", text)
    if items:
        return f"{_WORDS.get(items[2], items[2].upper())},..."
    words = [_WORDS.get(word, word.upper()) for word in text.split(" | ") if word]
    choices = "|".join(dict.fromkeys(words))
    return f"[{choices}]" if "bool" in text.split(" | ") else choices  # no value is true


_WORDS = {"int": "N", "float": "X", "str": "TEXT", "Path": "PATH", "bool": "true|false", "Any": ""}


def _unquoted(default: str) -> str:
    if default in ("True", "False"):
        return default.lower()
    return default[1:-1] if default[:1] in "'\"" and default[:1] == default[-1:] else default
