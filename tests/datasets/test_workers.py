"""Every dataset's samples travel to another process and are the same there."""

import pytest
import torch
from dataset_files import make_camvid, make_folder, make_h5, make_nyuv2, make_pets
from mtlkit_datasets.camvid import CamVid
from mtlkit_datasets.folder import Folder
from mtlkit_datasets.h5 import HDF5
from mtlkit_datasets.nyuv2 import NYUv2
from mtlkit_datasets.oxford_pets import OxfordPets
from mtlkit_datasets.shapes import Shapes
from torch.utils.data import ConcatDataset, DataLoader


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_workers_deliver_the_same_samples(tmp_path, method):
    together = ConcatDataset(
        [
            Shapes(train=3).split("train"),
            OxfordPets(root=make_pets(tmp_path / "pets", per_breed=2)).split("train"),
            HDF5(root=make_h5(tmp_path / "h5")).split("train"),
            Folder(root=make_folder(tmp_path / "own")).split("train"),
            NYUv2(root=make_nyuv2(tmp_path / "nyuv2", train=3)).split("train"),
            CamVid(root=make_camvid(tmp_path / "camvid")).split("train"),
        ]
    )
    here = [together[index] for index in range(len(together))]
    loader = DataLoader(together, batch_size=None, num_workers=1, multiprocessing_context=method)
    for ours, theirs in zip(here, loader, strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert type(value) is type(theirs[key])
            assert value == theirs[key] if key == "id" else torch.equal(value, theirs[key])


def test_no_two_samples_of_a_split_share_an_id(tmp_path):
    for data in (Shapes(), OxfordPets(root=make_pets(tmp_path / "pets"))):
        for name in ("train", "val", "test"):
            samples = data.split(name)
            ids = [samples[index]["id"] for index in range(len(samples))]
            assert len(set(ids)) == len(ids) == data.spec.sizes[name]
