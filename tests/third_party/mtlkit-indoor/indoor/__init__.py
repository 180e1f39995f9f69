"""Depth of rooms for mtlkit."""

import mtlkit


@mtlkit.hookimpl
def mtlkit_tasks():
    return {"metric-depth": "indoor.depth:Depth"}


@mtlkit.hookimpl
def mtlkit_heads():
    return {"metres": "indoor.metres:Metres"}


@mtlkit.hookimpl
def mtlkit_backbones():
    return {"cross-stitch": "indoor.cross_stitch:CrossStitch"}


@mtlkit.hookimpl
def mtlkit_balancers():
    return {"unit": "indoor.unit:Unit"}


@mtlkit.hookimpl
def mtlkit_datasets():
    return {"rooms": "indoor.rooms:Rooms"}


@mtlkit.hookimpl
def mtlkit_evaluated(run, result):
    if run.main:
        file = run.folder.path / f"indoor-{result['split']}.txt"
        file.write_text(f"{result['depth/rmse']:.3f}")
