"""The well-known recipe: a DataLoader that transforms image by image, and SAM tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from settings import CROP_PADDING, CUTOUT, MEAN, STD
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from samtune.data import Images


class Cutout:
    """A square of the mean colour with probability 1/2; its corner may lie outside."""

    def __call__(self, image: Tensor) -> Tensor:
        if torch.rand(()) < 0.5:
            top, left = (int(c) for c in torch.randint(-CUTOUT // 2, 32 - CUTOUT // 2, (2,)))
            image[:, max(0, top) : top + CUTOUT, max(0, left) : left + CUTOUT] = 0
        return image


class ImageByImage(Dataset[tuple[Tensor, int]]):
    def __init__(self, images: Images) -> None:
        self._arrays: list[np.ndarray[Any, Any]] = list(images.images.numpy())
        self._targets = images.targets.tolist()
        self._transform = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.RandomCrop(32, padding=CROP_PADDING),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
                Cutout(),
            ]
        )

    def __len__(self) -> int:
        return len(self._arrays)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(self._arrays[index]), self._targets[index]


def loader(images: Images, batch_size: int, workers: int = 2) -> DataLoader[tuple[Tensor, int]]:
    return DataLoader(ImageByImage(images), batch_size, shuffle=True, num_workers=workers)


class PerTensorSam:
    """SAM over SGD as it is usually written: a loop over tensors, fresh copies each step."""

    def __init__(self, model: nn.Module, rho: float, **settings: Any) -> None:
        self._params, self._rho = list(model.parameters()), rho
        self._sgd = torch.optim.SGD(self._params, **settings)

    @torch.no_grad()
    def _climb(self) -> list[Tensor]:
        home = []
        norms = [p.grad.norm() for p in self._params if p.grad is not None]
        scale = self._rho / (torch.stack(norms).norm() + 1e-12)
        for p in self._params:
            home.append(p.data.clone())
            if p.grad is not None:
                p.add_(p.grad * scale)
        self._sgd.zero_grad()
        return home

    def step(self, backward: Callable[[], None]) -> None:
        backward()
        home = self._climb()
        backward()
        for p, old in zip(self._params, home, strict=True):
            p.data = old
        self._sgd.step()
        self._sgd.zero_grad()
