"""The datasets that come with mtlkit: names only, nothing heavy is imported."""

import mtlkit


@mtlkit.hookimpl
def mtlkit_datasets() -> dict[str, str]:
    """Names and homes of the datasets."""
    return {
        "camvid": "mtlkit_datasets.camvid:CamVid",
        "cityscapes": "mtlkit_datasets.cityscapes:Cityscapes",
        "folder": "mtlkit_datasets.folder:Folder",
        "h5": "mtlkit_datasets.h5:HDF5",
        "nyuv2": "mtlkit_datasets.nyuv2:NYUv2",
        "oxford-pets": "mtlkit_datasets.oxford_pets:OxfordPets",
        "shapes": "mtlkit_datasets.shapes:Shapes",
    }
