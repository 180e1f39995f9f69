"""The checks of every component find their faults, whatever its kind."""

from typing import Any, ClassVar

import pytest
import torch
from faults import fault

from mtlkit import Head, LossBalancer, Task
from mtlkit.testing import ConformanceError, check, check_balancer
from mtlkit.testing.component import CHECKS


class Right(LossBalancer):
    """All alike."""

    def weights(self, stats):
        return stats.losses * 0 + 1


class Unfinished(LossBalancer):
    """It has no weights."""


class NoSubclass:
    """It is something else."""


class Swallowing(Right):
    """It takes what it is given."""

    def __init__(self, tasks, /, **options):
        super().__init__(tasks)


class Positional(Right):
    """Its option has a place.

    Args:
        share: of all.
    """

    def __init__(self, tasks, share: float = 0.5):
        super().__init__(tasks)


class Untyped(Right):
    """Its option has no type.

    Args:
        share: of all.
    """

    def __init__(self, tasks, /, *, share=0.5):
        super().__init__(tasks)


class Undocumented(Right):
    """Its option is not explained."""

    def __init__(self, tasks, /, *, share: float = 0.5):
        super().__init__(tasks)


class Reserved(Right):
    """Its option has a name that mtlkit needs.

    Args:
        name: of something.
    """

    def __init__(self, tasks, /, *, name: str = "x"):
        super().__init__(tasks)


class Wordless(Right):
    __doc__ = None


class Phrase(Right):
    """all alike"""


class OtherDefault(Right):
    """The default is not of the type.

    Args:
        share: of all.
    """

    def __init__(self, tasks, /, *, share: float = None):  # noqa: RUF013
        super().__init__(tasks)


class Unwritable(Right):
    """The default is no number, text, list or mapping.

    Args:
        dtype: of something.
    """

    def __init__(self, tasks, /, *, dtype: Any = torch.float32):
        super().__init__(tasks)


class Waiving(Right):
    """It waives what nobody asks."""

    waives: ClassVar = {"it can fly": "it has no wings"}


BUILT = "it can be built"
OPTIONS = "options are set by name and have types and help"
SENTENCE = "the docstring begins with a sentence"
FILE = "options come back from a configuration file"
WAIVERS = "what it waives are checks"
WRONG = [
    (BUILT, Unfinished, "abstract"),
    (BUILT, NoSubclass, "it is no subclass of mtlkit.LossBalancer"),
    (OPTIONS, Swallowing, "the constructor takes whatever it is given: *options"),
    (OPTIONS, Positional, "neither positional-only nor keyword-only: tasks, share"),
    (OPTIONS, Untyped, "without a type: share"),
    (OPTIONS, Undocumented, "not documented under Args: share"),
    (OPTIONS, Reserved, "mtlkit keeps this name for itself: name"),
    (SENTENCE, Wordless, "the class has no docstring"),
    (SENTENCE, Phrase, "the first line is no sentence: 'all alike'"),
    (FILE, OtherDefault, "option share expects a number, but got None"),
    (FILE, Unwritable, "they cannot be written to a file: RepresenterError: "),
    (WAIVERS, Waiving, "no check is called 'it can fly'"),
]


def test_every_check_has_a_wrong_component() -> None:
    assert {name for name, _, _ in WRONG} == {check.name for check in CHECKS}


@pytest.mark.parametrize(("name", "wrong", "text"), WRONG)
def test_a_wrong_component_is_found(name: str, wrong: type, text: str) -> None:
    assert text in fault("balancer", name, wrong)


def test_the_error_lists_every_failed_check_with_why_and_how_to_mend_it() -> None:
    class Worst(Undocumented):
        """a phrase"""

        def weights(self, stats):
            return stats.losses * 0 - 1

    with pytest.raises(ConformanceError) as caught:
        check_balancer(Worst)
    title, *parts = str(caught.value).split("\n\n")
    assert title == "balancer 'Worst' fails 3 of 18 checks"
    assert [part.splitlines()[0] for part in parts] == [
        OPTIONS,
        SENTENCE,
        "one task alone is trained plainly",
    ]
    assert parts[2].splitlines()[1:] == [
        "  what: its weight is -1",
        "  why:  With one task there is nothing to balance: the run must equal plain training, but "
        "for the length of the step.",
        "  mend: Make weights() return one positive number when one task is active.",
    ]


def test_what_cannot_be_built_is_not_checked_further() -> None:
    with pytest.raises(ConformanceError, match=r"^balancer 'Unfinished' fails 1 of 1 checks\n"):
        check("balancer", Unfinished)


def test_an_option_that_the_component_lacks_is_an_error() -> None:
    with pytest.raises(ConformanceError, match="unexpected keyword argument 'c'"):
        check_balancer(Right, c=0.5)


@pytest.mark.parametrize(("kind", "cls"), [("head", Task), ("task", Head), ("dataset", Right)])
def test_a_class_of_another_kind_is_refused(kind: str, cls: Any) -> None:
    with pytest.raises(ConformanceError, match="it is no subclass of mtlkit"):
        check(kind, cls)
