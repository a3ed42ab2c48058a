"""Contenders of `training_step.py`: PyTorch to open_lth's recipe, and fast.

What `to_recipe` keeps of Frankle's open_lth, with the data in memory: a
shuffled `DataLoader` that fetches and collates example by example (no worker
processes), `zero_grad`, `model.train()`, the mask multiplied into `data` of
every pruned parameter at the start of each forward pass, looked up by name as
theirs is, the default optimizer, and a step of the learning-rate schedule every
iteration under a filter of warnings. What it leaves out: PIL images and their
transforms (`as shipped` is two to three times slower again), callbacks before
every step, evaluation, checkpoints. Written anew from a reading of their
`training/train.py`, `pruning/pruned_model.py` and `datasets/base.py`.

`fast` is the fastest that we could write: data resident, batches by
`index_select` of a permutation, gradients masked in place and set to None
instead of zeroed, the fused optimizer, convolutions on channels-last memory.
`torch.compile` of the forward and backward pass gained nothing on any of the
three networks (PyTorch 2.13, one thread). `by_hand` does without autograd, for
LeNet only: its gradients written out, results into buffers that stay.
"""

import warnings

import torch
from step_tasks import TASKS
from step_tasks import data
from step_torch_networks import NETWORKS
from step_torch_networks import masks
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torch.utils.data import TensorDataset


class Masked(nn.Module):
    """A network whose masks are multiplied in before every forward pass."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        for name, mask in masks(model).items():
            self.register_buffer(_buffer(name), mask)

    def forward(self, x):
        """Applies the masks, then the network."""
        for name, weight in self.model.named_parameters():
            if hasattr(self, _buffer(name)):
                weight.data *= getattr(self, _buffer(name))
        return self.model(x)


def to_recipe(network):
    """Returns a function that trains as open_lth does, data in memory."""
    task = TASKS[network]
    model = Masked(NETWORKS[network](task.shape))
    optimizer = _optimizer(task, model, None)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    criterion = nn.CrossEntropyLoss()
    rows = TensorDataset(*_tensors(network))
    loader = DataLoader(rows, task.batch, shuffle=True)

    def train():
        # One pass has the steps of a round or more.
        for _, (images, labels) in zip(range(task.steps), loader):
            labels = labels.long()
            optimizer.zero_grad()
            model.train()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", category=UserWarning)
                schedule.step()
        return float(loss.detach())

    return train


def fast(network):
    """Returns a function that trains as fast as we can have PyTorch train."""
    task = TASKS[network]
    images, labels = _tensors(network)
    model = NETWORKS[network](task.shape)
    if network != "lenet":
        images = images.contiguous(memory_format=torch.channels_last)
        model = model.to(memory_format=torch.channels_last)
    optimizer = _optimizer(task, model, True)
    held = _held(model)

    def train():
        order = torch.randperm(task.rows)
        for step in range(task.steps):
            rows = order[step * task.batch : (step + 1) * task.batch]
            outputs = model(images.index_select(0, rows))
            optimizer.zero_grad(set_to_none=True)
            loss = functional.cross_entropy(
                outputs, labels.index_select(0, rows)
            )
            loss.backward()
            for weight, mask in held:
                weight.grad.mul_(mask)
            optimizer.step()
        return float(loss.detach())

    return train


def by_hand(network):
    """Returns a function that trains LeNet without autograd."""
    task = TASKS[network]
    images, labels = _tensors(network)
    images = images.flatten(1)
    model = NETWORKS[network](task.shape)
    held = [mask for _, mask in _held(model)]
    weights = [each.detach() for each in model.parameters()]
    gradients, first, second = (
        [torch.zeros_like(each) for each in weights] for _ in range(3)
    )
    counts = [torch.zeros(()) for _ in weights]

    @torch.no_grad()
    def train():
        order = torch.randperm(task.rows)
        for step in range(task.steps):
            rows = order[step * task.batch : (step + 1) * task.batch]
            _backward(
                weights,
                images.index_select(0, rows),
                labels.index_select(0, rows),
                gradients,
            )
            torch._foreach_mul_(gradients[::2], held)
            torch._foreach_add_(counts, 1)
            torch._fused_adam_(
                weights, gradients, first, second, [], counts,
                lr=task.rate, beta1=0.9, beta2=0.999, eps=1e-8,
                weight_decay=0.0, amsgrad=False, maximize=False,
            )  # fmt: skip
        return float(weights[-1][0])

    return train


def _backward(weights, images, labels, gradients):
    """Writes the gradients of the mean cross-entropy of LeNet's logits."""
    kernels, biases = weights[::2], weights[1::2]
    inputs = [images]
    for kernel, bias in zip(kernels[:-1], biases):
        inputs.append(torch.addmm(bias, inputs[-1], kernel.t()).relu_())
    logits = torch.addmm(biases[-1], inputs[-1], kernels[-1].t())
    behind = torch.softmax(logits, 1)
    behind[torch.arange(len(labels)), labels] -= 1
    behind /= len(labels)
    for number in (2, 1, 0):
        torch.mm(behind.t(), inputs[number], out=gradients[2 * number])
        torch.sum(behind, 0, out=gradients[2 * number + 1])
        if number:
            behind = torch.ops.aten.threshold_backward(
                torch.mm(behind, kernels[number]), inputs[number], 0
            )


def _held(model):
    """Returns pairs of weight and mask; the weights begin masked."""
    found, weights = masks(model), dict(model.named_parameters())
    with torch.no_grad():
        for name, mask in found.items():
            weights[name].mul_(mask)
    return [(weights[name], mask) for name, mask in found.items()]


def _optimizer(task, model, fused):
    if task.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), task.rate, fused=fused)
    return torch.optim.SGD(
        model.parameters(), task.rate, momentum=0.9, fused=fused
    )


def _tensors(network):
    images, labels = data(network)
    return (
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(labels),
    )


def _buffer(name):
    return "mask_" + name.replace(".", "_")
