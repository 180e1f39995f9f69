"""How many cases property tests try; ``pytest --hypothesis-profile=long`` tries 20 times more."""

from hypothesis import HealthCheck, settings

SHORT = 100

settings.register_profile(
    "short",
    max_examples=SHORT,
    deadline=None,
    database=None,  # nothing is written beside the tests
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile(
    "long", settings.get_profile("short"), max_examples=20 * SHORT, derandomize=False
)
settings.load_profile("short")


def cases(number: int) -> settings:
    """Settings for so many cases in the short profile, and in proportion in another one."""
    return settings(max_examples=number * settings().max_examples // SHORT)
