"""The backbones that come with mtlkit: names only, nothing heavy is imported."""

import mtlkit


@mtlkit.hookimpl
def mtlkit_backbones() -> dict[str, str]:
    """Names and homes of the backbones."""
    return {
        "mtan": "mtlkit_backbones.mtan:MTAN",
        "segnet": "mtlkit_backbones.segnet:SegNet",
        "timm": "mtlkit_backbones.any_timm:Timm",
        "vgg16": "mtlkit_backbones.vgg16:VGG16",
    }
