"""The datasets that come with mtlkit: names only, nothing heavy is imported."""

import mtlkit


@mtlkit.hookimpl
def mtlkit_datasets() -> dict[str, str]:
    """Names and homes of the datasets."""
    return {
        "folder": "mtlkit_datasets.folder:Folder",
        "h5": "mtlkit_datasets.h5:HDF5",
        "oxford-pets": "mtlkit_datasets.oxford_pets:OxfordPets",
        "shapes": "mtlkit_datasets.shapes:Shapes",
    }
