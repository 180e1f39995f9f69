"""The heads that come with mtlkit: names only, nothing heavy is imported."""

import mtlkit


@mtlkit.hookimpl
def mtlkit_heads() -> dict[str, str]:
    """Names and homes of the heads."""
    return {
        "dense": "mtlkit_heads.dense:Dense",
        "linear": "mtlkit_heads.linear:Linear",
    }
