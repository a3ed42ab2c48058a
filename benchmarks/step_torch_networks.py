"""The networks of `keras_lottery.models` in PyTorch, and masks for them.

Images are (channels, height, width), as PyTorch has them.
"""

import torch
from step_tasks import CLASSES
from step_tasks import KEPT
from torch import nn
from torch.nn import functional


def lenet(shape):
    """Returns LeNet-300-100."""
    height, width, channels = shape
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(height * width * channels, 300),
        nn.ReLU(),
        nn.Linear(300, 100),
        nn.ReLU(),
        nn.Linear(100, CLASSES),
    )


def conv2(shape):
    """Returns Conv-2."""
    height, width, channels = shape
    return nn.Sequential(
        nn.Conv2d(channels, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (height // 2) * (width // 2), 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, CLASSES),
    )


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, before, channels, strides):
        super().__init__()
        self.first = _convolved(before, channels, 3, strides)
        self.second = _convolved(channels, channels, 3, 1)
        self.shortcut = nn.Identity()
        if strides > 1:
            self.shortcut = _convolved(before, channels, 1, strides)

    def forward(self, x):
        """Returns what the block makes of `x`."""
        inside = self.second(functional.relu(self.first(x)))
        return functional.relu(inside + self.shortcut(x))


def resnet20(shape):
    """Returns ResNet-20."""
    stack, before = [_convolved(shape[-1], 16, 3, 1), nn.ReLU()], 16
    for channels in (16, 32, 64):
        for block in range(3):
            strides = 2 if channels > 16 and block == 0 else 1
            stack.append(Block(before, channels, strides))
            before = channels
    stack += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES)]
    return nn.Sequential(*stack)


def masks(model):
    """Returns dict from name to a float mask of each kernel.

    `KEPT` of each is kept, by magnitude.
    """
    found = {}
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            removed = round((1 - KEPT) * weight.numel())
            size = weight.detach().abs()
            threshold = size.flatten().kthvalue(removed).values
            found[name] = (size > threshold).to(torch.float32)
    return found


def _convolved(before, channels, size, strides):
    return nn.Sequential(
        nn.Conv2d(
            before, channels, size, strides, padding=size // 2, bias=False
        ),
        nn.BatchNorm2d(channels),
    )


NETWORKS = {"lenet": lenet, "conv2": conv2, "resnet20": resnet20}
