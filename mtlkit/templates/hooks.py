"""What this package brings to mtlkit: names only, so that listing them imports nothing heavy."""

import mtlkit


@mtlkit.hookimpl
def mtlkit_balancers() -> dict[str, str]:
    """Name to module and class."""
    return {"my-plugin": "my_plugin.balancer:MyPlugin"}
