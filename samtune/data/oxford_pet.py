"""Oxford-IIIT Pet (Parkhi et al. 2012): 7,349 photographs of 37 breeds with trimaps."""

from __future__ import annotations

from pathlib import Path

import torch

from samtune.data.augmentation import Augmentation, CropArea, Padding, Strength
from samtune.data.downloads import open_files
from samtune.data.file_splits import ImageSize, InMemory, folder_splits, pixel_statistics
from samtune.data.splits import DataSplits, stratified_split
from samtune.data.streaming import ImageFiles, MaskReading
from samtune.registry import Share, Size, register_dataset

TRIMAP = MaskReading(num_classes=3, first_class=1)


@register_dataset("oxford_pet", task="segmentation")
def oxford_pet(
    *,
    root: Path = Path("data"),
    download: bool = True,
    image_size: ImageSize = (128, 128),
    held_out: Share = 0.1,
    split_seed: Size = 0,
    in_memory: InMemory = "auto",
    workers: Size = 2,
    crop_padding: Size = 0,
    padding: Padding = "zero",
    flip: bool = True,
    random_resized_crop: CropArea = 1.0,
    color_jitter: Strength = 0.0,
) -> DataSplits:
    """Pets by pixel: animal, background, or the border between; about 3,300 training images.

    Args:
        root: folder that holds, or will hold, `oxford-iiit-pet`.
        download: fetch the 800 MB if they are not there.
        image_size: height and width to which images and trimaps are resized.
        held_out: share of the training images that is the val split.
        split_seed: draws those, every breed in its usual share, whatever the training seed.
        in_memory: hold all images as bytes (always), stream them (never), or by size: up to 2 GiB.
        workers: processes that read streamed images; 0 reads in the training process.
        crop_padding: pad by this many pixels, then crop at a random place; 0 is off.
        padding: what it is padded with: black (zero) or the image mirrored (reflect).
        flip: mirror left to right with probability 1/2.
        random_resized_crop: least share of its area that a crop shows, then resized to the whole;
            1 is off, 0.08 is usual for photographs.
        color_jitter: most change of brightness, contrast and saturation; 0 is off, 0.4 is usual.
    """
    import torchvision

    breeds: list[int] = []

    def files(name: str) -> ImageFiles:
        pets = open_files(
            torchvision.datasets.OxfordIIITPet,
            "oxford_pet",
            root,
            download=download,
            split="trainval" if name == "train" else "test",
            target_types=["category", "segmentation"],
        )
        if name == "train":
            breeds[:] = pets._labels
        return ImageFiles(
            pets._images,
            image_size,
            masks=pets._segs,
            mask_reading=TRIMAP,
            workers=workers,
        )

    folder = root / "oxford-iiit-pet"
    mean, std = pixel_statistics(3)
    return folder_splits(
        {"train": folder, "test": folder},
        files,
        lambda _, sizes: stratified_split(torch.tensor(breeds), sizes, split_seed),
        held_out=held_out,
        in_memory=in_memory,
        task="segmentation",
        num_classes=3,
        mean=mean,
        std=std,
        augmentation=Augmentation(
            crop_padding,
            flip,
            padding=padding,
            random_resized_crop=random_resized_crop,
            color_jitter=color_jitter,
        ),
        classes=("animal", "background", "border"),
    )
