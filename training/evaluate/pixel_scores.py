"""How well the classes of pixels were told, over any number of pictures.

Pixels without a label count nowhere, whatever was said of them. Two means of the intersection over
the union (IoU) are in use: the AVSA paper's, over all pairs of a picture and a class that is in it
or was said to be; and the usual one, over classes, of areas summed over the whole data set.
"""

from __future__ import annotations

import torch
from torch import Tensor


class PixelScores:
    """Counts of pixels; all shares are from 0 to 1, and nan where there was nothing to count.

    ignored : the label of pixels that do not count.
    """

    def __init__(self, n_classes: int, ignored: int = 255) -> None:
        self._n, self._ignored = n_classes, ignored
        self.confusion = torch.zeros(n_classes, n_classes, dtype=torch.int64)  # label, prediction
        self._image_accuracies: list[Tensor] = []
        self._image_ious: list[Tensor] = []

    def add(self, predicted: Tensor, labels: Tensor) -> None:
        """Count pictures, [shape=(N, H, W)] each."""
        n = self._n
        for one, truth in zip(predicted.flatten(1), labels.flatten(1), strict=True):
            counted = truth != self._ignored
            pairs = n * truth[counted] + one[counted]
            confusion = torch.bincount(pairs, minlength=n * n).view(n, n).cpu()
            if not confusion.any():
                continue
            self.confusion += confusion
            right = confusion.diag().double()
            self._image_accuracies.append(right.sum() / confusion.sum())
            iou = _iou(confusion)
            self._image_ious.append(iou[~iou.isnan()])

    @property
    def pixel_accuracy(self) -> float:
        """Share of all pixels that are right."""
        return float(self.confusion.diag().sum() / self.confusion.sum())

    @property
    def image_accuracy(self) -> float:
        """Mean over pictures of the share of their pixels that is right."""
        return _mean(self._image_accuracies)

    @property
    def image_iou(self) -> float:
        """Mean IoU over pairs of picture and class: the paper's."""
        return _mean([torch.cat(self._image_ious)] if self._image_ious else [])

    @property
    def mean_iou(self) -> float:
        """Mean IoU over the classes of the data set."""
        return _mean([self.class_ious])

    @property
    def class_accuracies(self) -> Tensor:
        """Share of each class's pixels that is right, float64 [shape=(classes,)]."""
        return self.confusion.diag().double() / self.confusion.sum(1)

    @property
    def class_ious(self) -> Tensor:
        """IoU of each class over the data set, float64 [shape=(classes,)]."""
        return _iou(self.confusion)

    @property
    def commonest(self) -> float:
        """What always saying the commonest class would score as pixel accuracy."""
        return float(self.confusion.sum(1).max() / self.confusion.sum())


def _iou(confusion: Tensor) -> Tensor:
    both = confusion.diag().double()
    return both / (confusion.sum(0) + confusion.sum(1) - confusion.diag())


def _mean(values: list[Tensor]) -> float:
    found = torch.cat([value.flatten() for value in values]) if values else torch.empty(0)
    return float(found[~found.isnan()].mean())
