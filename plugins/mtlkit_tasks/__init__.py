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
        "edge": "mtlkit_tasks.edge:Edge",
        "seg": "mtlkit_tasks.seg:Segmentation",
    }
