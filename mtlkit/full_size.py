"""Labels in the pixels of their own pictures, beside the batches that the network sees."""

from collections.abc import Sequence

from torch.utils.data import Dataset as TorchDataset

from mtlkit.data import Sample, Samples
from mtlkit.loader import Batch, Key, Prepared


class FullSize(TorchDataset[Sample]):
    """What :class:`Prepared` gives, and each sample's labels as they are without its geometry.

    Args:
        prepared: for evaluation, without augmentation.
    """

    def __init__(self, prepared: Prepared) -> None:
        self.once = _Once(prepared.samples)
        self.targets, self.seed = prepared.targets, prepared.seed
        self.prepared = Prepared(self.once, prepared.targets, prepared.size, seed=prepared.seed)

    def __getitem__(self, key: Key) -> Sample:
        sample = self.prepared[key]
        if "problem" in sample:
            return sample
        whole = self.once.last
        height, width = whole["image"].shape[-2:]
        own = Prepared([whole], self.targets, (height, width), seed=self.seed)
        labels = own.collate([own[key._replace(position=0)]])
        return {
            **sample,
            "own": {"size": (height, width), **{k: labels[k] for k in ("targets", "present")}},
        }

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """A batch with ``own``: for each sample a batch of its labels alone, and their ``size``.

        Returns:
            What :meth:`Prepared.collate` does; ``own`` is a list of ``size`` (height, width),
            ``targets`` by name, [1, ...] and ``present`` by name, bool [1]; boxes in [0, 1].
        """
        batch = self.prepared.collate(samples)
        return batch if "problem" in batch else {**batch, "own": [s["own"] for s in samples]}


class _Once:
    """Samples, of which the last one that was read can be had again."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self.last: Sample = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int, /) -> Sample:
        self.last = self.samples[index]
        return self.last
