"""Digits, traffic signs and chest x-rays, read from files that no package holds and split; see `find_data`."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flyweight.errors import InputError
from flyweight.zoo.cache import fingerprint
from flyweight.zoo.data_files import find_data
from flyweight.zoo.distortion import Distortion
from flyweight.zoo.images import SPLIT_SEED, Images, ImageSplits

Arrays = tuple[NDArray[Any], NDArray[Any]]  # pixels (rows, height, width[, channels]), labels (rows,) or (rows, 1)


def mnist(validation_rows: int = 5_000) -> ImageSplits:
    """Return MNIST's 60,000 digits less a random 5,000 for validation, and its 10,000 test digits: (1, 28, 28).

    Raises:
        InputError: the file is not there, or lacks an array; says where it was looked for.
    """
    pixels, labels, *test = _read("mnist.npz", "x_train", "y_train", "x_test", "y_test")
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    held, kept = order[:validation_rows], order[validation_rows:]
    move = Distortion(shift=0.08, turn=12, scale=0.12, shear=0.12)
    return _splits((pixels[kept], labels[kept]), (pixels[held], labels[held]), (test[0], test[1]), move)


def gtsrb(share: float = 0.15) -> ImageSplits:
    """Return the traffic signs, (3, 32, 32), 43 classes; whole tracks are held out for validation.

    The images of a track are frames of one sign driven past, nearly alike, so an image whose neighbours were trained on
    says nothing. `share` of each class's tracks is held out, at least one where there are four, none where there are
    two. The test images come from other tracks again, but which of them belong together is not published: intervals on
    them take the rows as independent.

    Raises:
        InputError: as `mnist`.
    """
    pixels, labels, tracks, *test = _read("gtsrb_subset.npz", "x_train", "y_train", "track", "x_test", "y_test")
    random = np.random.default_rng(SPLIT_SEED)
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        own = random.permutation(np.unique(tracks[labels == label]))
        count = max(round(share * len(own)), int(len(own) >= 4))
        held |= (labels == label) & np.isin(tracks, own[:count])
    order = random.permutation(np.flatnonzero(~held))
    move = Distortion(shift=0.1, turn=10, scale=0.15, shear=0.1, light=0.4)
    train, validation = (pixels[order], labels[order]), (pixels[held], labels[held])
    return _splits(train, validation, (test[0], test[1]), move)


def pneumonia() -> ImageSplits:
    """Return PneumoniaMNIST's chest x-rays, (1, 28, 28), label 1 for pneumonia, in its own three splits.

    Raises:
        InputError: as `mnist`.
    """
    names = [f"{split}_{what}" for split in ("train", "val", "test") for what in ("images", "labels")]
    found = _read("pneumoniamnist.npz", *names)
    train, validation, test = ((found[place], found[place + 1]) for place in (0, 2, 4))
    order = np.random.default_rng(SPLIT_SEED).permutation(len(train[1]))
    move = Distortion(shift=0.08, turn=10, scale=0.12, light=0.3)
    return _splits((train[0][order], train[1][order]), validation, test, move)


def _read(file: str, *names: str) -> list[NDArray[Any]]:
    """Return arrays of a file by name."""
    path = find_data(file)
    try:
        with np.load(path, allow_pickle=False) as data:
            missing = [name for name in names if name not in data.files]
            if not missing:
                return [data[name] for name in names]
            seen = ", ".join(data.files) or "nothing"
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name} cannot be read as NumPy arrays ({error}); take the file anew.") from error
    raise InputError(f"{path.name} lacks the arrays {', '.join(missing)}; it holds {seen}. Take the file anew.")


def _splits(train: Arrays, validation: Arrays, test: Arrays, move: Distortion) -> ImageSplits:
    def images(pixels: NDArray[Any], labels: NDArray[Any]) -> Images:
        first = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)  # (rows, channels, height, width)
        flat = torch.from_numpy(labels.reshape(-1).astype(np.int64))
        return Images(torch.from_numpy(np.ascontiguousarray(first)), flat, distortion=move)

    learned = images(*train)
    content = {"pixels": learned.pixels.numpy(), "labels": learned.labels.numpy()}
    return ImageSplits(learned, images(*validation), images(*test), fingerprint(content))
