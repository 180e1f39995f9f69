"""Quality of predicted pictures."""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.image import structural_similarity_index_measure as similarity

from mtlkit_tasks._sums import labelled_sum

LEAST_ERROR = 1e-10
"""Mean squared error below which PSNR grows no further (100 dB)."""


class Quality(Metric):
    """PSNR in dB and, if asked for, SSIM, for pictures in [0, 1]: means over pictures."""

    full_state_update = False
    psnr: Tensor
    ssim: Tensor
    total: Tensor

    def __init__(self, *, with_ssim: bool) -> None:
        super().__init__()
        self.with_ssim = with_ssim
        for name in ("psnr", "ssim", "total"):
            self.add_state(name, torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, pictures: Tensor, truth: Tensor, present: Tensor) -> None:
        """Add one batch ``[B, C, H, W]``; what lies outside [0, 1] is clipped first."""
        pictures = pictures.clamp(0, 1)
        errors = (pictures - truth).square().flatten(1).mean(1).clamp(min=LEAST_ERROR)
        self.psnr += labelled_sum(-10 * errors.log10(), present)
        if self.with_ssim:
            each = similarity(pictures, truth, reduction="none", data_range=1.0)
            assert isinstance(each, Tensor)
            self.ssim += labelled_sum(each, present)
        self.total += present.sum()

    def compute(self) -> dict[str, Tensor]:
        """NaN where there is no picture."""
        values = {"psnr": self.psnr / self.total}
        return {**values, "ssim": self.ssim / self.total} if self.with_ssim else values
