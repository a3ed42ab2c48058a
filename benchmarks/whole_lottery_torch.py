"""A whole lottery in PyTorch to the recipe of open_lth, with data in memory.

Written from memory of facebookresearch/open_lth, none of it copied. Kept of its
recipe: a model of masks that multiplies each parameter by its mask before every
forward pass; one loop over a shuffled DataLoader whose examples are fetched and
collated one by one, without workers; per step zero_grad, train(), the loss,
backward, an unfused Adam with its defaults, a learning-rate schedule; a new
model and optimizer for each level; Kaiming normal weights; evaluation by a
DataLoader with batches of the same size; pruning by magnitude over all layers
at once, by sorting in numpy.

Left out, all of it to its advantage: pictures that are opened and transformed
by PIL for each example, checkpoints, logs and files between levels. All layers
share one rate, as theirs do, so its last level keeps other numbers.
"""

import warnings

import numpy as np
import torch
import whole_lottery_task as tasks
from torch.utils.data import DataLoader
from torch.utils.data import TensorDataset


class LeNet(torch.nn.Module):
    """LeNet-300-100."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(int(np.prod(tasks.SHAPE)), 300)
        self.second = torch.nn.Linear(300, 100)
        self.output = torch.nn.Linear(100, tasks.CLASSES)
        for layer in (self.first, self.second, self.output):
            torch.nn.init.kaiming_normal_(layer.weight)  # their default

    def forward(self, x):
        x = x.view(x.size(0), -1)
        x = torch.nn.functional.relu(self.first(x))
        x = torch.nn.functional.relu(self.second(x))
        return self.output(x)


class Masked(torch.nn.Module):
    """A model whose parameters are multiplied by masks in each pass."""

    def __init__(self, model, masks):
        super().__init__()
        self.model = model
        for name, mask in masks.items():
            self.register_buffer(buffer_name(name), torch.from_numpy(mask))

    def forward(self, x):
        for name, parameter in self.model.named_parameters():
            if hasattr(self, buffer_name(name)):
                parameter.data *= getattr(self, buffer_name(name))
        return self.model(x)


def buffer_name(name):
    return "mask_" + name.replace(".", "_")


def train(model, loader, task, evaluate):
    """Trains one level; returns the accuracy of the last evaluation."""
    optimizer = torch.optim.Adam(model.parameters(), lr=tasks.RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    criterion = torch.nn.CrossEntropyLoss()
    step = 0
    while True:
        for examples, labels in loader:
            optimizer.zero_grad()
            model.train()
            criterion(model(examples), labels).backward()
            optimizer.step()
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", category=UserWarning)
                schedule.step()
            step += 1
            if step % task.every == 0:
                _, accuracy = evaluate(model)
            if step == task.steps:
                return accuracy


def evaluation(loader):
    """Returns a function that gives a model's loss and accuracy."""
    criterion = torch.nn.CrossEntropyLoss()

    def evaluate(model):
        count = loss = correct = torch.tensor(0.0)
        model.eval()
        with torch.no_grad():
            for examples, labels in loader:
                answers = model(examples)
                size = torch.tensor(len(labels))
                count = count + size
                loss = loss + criterion(answers, labels) * size
                correct = correct + (answers.argmax(1) == labels).sum()
        return (loss / count).item(), (correct / count).item()

    return evaluate


def pruned(model, masks):
    """Returns masks without the lowest fifth of what all layers have left."""
    weights = {
        name: model.model.get_parameter(name).detach().numpy() for name in masks
    }
    live = [weights[name][mask == 1] for name, mask in masks.items()]
    magnitudes = np.sort(np.abs(np.concatenate(live)))
    count = int(np.ceil(tasks.REMOVED * len(magnitudes)))
    threshold = magnitudes[count]
    return {
        name: np.where(np.abs(weights[name]) >= threshold, mask, 0)
        for name, mask in masks.items()
    }


def play(task):
    torch.set_num_threads(task.threads)
    torch.set_num_interop_threads(task.threads)
    arrays = [torch.from_numpy(each) for each in tasks.read_data(task.data)]
    loader = DataLoader(
        TensorDataset(*arrays[:2]), batch_size=tasks.BATCH, shuffle=True
    )
    evaluate = evaluation(
        DataLoader(TensorDataset(*arrays[2:]), batch_size=tasks.BATCH)
    )
    first = {n: v.clone() for n, v in LeNet().state_dict().items()}
    masks = {
        name: np.ones(tuple(value.shape), np.float32)
        for name, value in first.items()
        if name.endswith("weight")
    }
    for level in range(task.levels):
        network = LeNet()
        network.load_state_dict(first)
        model = Masked(network, masks)
        accuracy = train(model, loader, task, evaluate)
        if level < task.levels - 1:
            masks = pruned(model, masks)
    kept = sum(int(mask.sum()) for mask in masks.values())
    return {"kept": kept, "accuracy": accuracy}


if __name__ == "__main__":
    tasks.answer(play)
