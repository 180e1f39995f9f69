"""``mtlkit data check PATH|NAME``: exit code 1 when anything is bad."""

from collections.abc import Sequence
from pathlib import Path

from mtlkit import help, source
from mtlkit.errors import ConfigError
from mtlkit.source import BARE


def run(argv: Sequence[str]) -> int:
    """Run it; returns the exit code."""
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
    from mtlkit import data_check, data_preview

    layer = {key: source.Given(value, source.COMMAND_LINE) for key, value in given.items()}
    found = data_check.check(data_check.choose(word, layer))
    print(data_check.describe(found))
    if preview and found.spec:
        data_preview.preview(found, Path(preview))
    return 1 if found.problems else 0
