"""The balancers that come with mtlkit: names only, nothing heavy is imported."""

import mtlkit


@mtlkit.hookimpl
def mtlkit_balancers() -> dict[str, str]:
    """Names and homes of the balancers."""
    return {
        "dwa": "mtlkit_balancers.dwa:DWA",
        "equal": "mtlkit_balancers.equal:Equal",
        "fixed": "mtlkit_balancers.fixed:Fixed",
        "uncertainty": "mtlkit_balancers.uncertainty:Uncertainty",
    }
