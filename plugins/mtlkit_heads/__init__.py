"""The heads that come with mtlkit: names only, nothing heavy is imported."""

import mtlkit


@mtlkit.hookimpl
def mtlkit_heads() -> dict[str, str]:
    """Names and homes of the heads."""
    return {
        "deeplabv3": "mtlkit_heads.deeplabv3:DeepLabV3",
        "deeplabv3plus": "mtlkit_heads.deeplabv3plus:DeepLabV3Plus",
        "dense": "mtlkit_heads.dense:Dense",
        "dpt": "mtlkit_heads.dpt:DPT",
        "fpn": "mtlkit_heads.fpn:FPN",
        "linear": "mtlkit_heads.linear:Linear",
        "linknet": "mtlkit_heads.linknet:LinkNet",
        "manet": "mtlkit_heads.manet:MANet",
        "pan": "mtlkit_heads.pan:PAN",
        "pspnet": "mtlkit_heads.pspnet:PSPNet",
        "segformer": "mtlkit_heads.segformer:SegFormer",
        "spatial": "mtlkit_heads.spatial:Spatial",
        "unet": "mtlkit_heads.unet:UNet",
        "unetplusplus": "mtlkit_heads.unetplusplus:UNetPlusPlus",
        "upernet": "mtlkit_heads.upernet:UPerNet",
    }
