"""The tasks that come with mtlkit: names only, nothing heavy is imported."""

import mtlkit


@mtlkit.hookimpl
def mtlkit_tasks() -> dict[str, str]:
    """Names and homes of the tasks."""
    return {
        "bbox": "mtlkit_tasks.bbox:BBox",
        "cls": "mtlkit_tasks.cls:Classification",
        "colourise": "mtlkit_tasks.colourise:Colourise",
        "denoise": "mtlkit_tasks.denoise:Denoise",
        "depth": "mtlkit_tasks.depth:Depth",
        "edge": "mtlkit_tasks.edge:Edge",
        "normals": "mtlkit_tasks.normals:Normals",
        "seg": "mtlkit_tasks.seg:Segmentation",
    }
