"""How much each task counts in the loss that is minimised.

Three answers with one interface: a module that turns the losses of the tasks into one. In a training step::

    losses = combine(terms)
    return self.weighting(losses, shared)  # which Lightning's automatic optimisation takes from there

* The losses are those of :func:`training.learning.losses.combine`; every process calls with the same tasks.
* Nothing else is asked of the optimiser: the log variances of ``uncertainty`` are parameters, to be given to it
  without weight decay; the weights of ``gradient_norm`` are buffers that the module changes itself, out of reach
  of gradient clipping, learning rate schedules and gradient scaling. All of it is in the ``state_dict``.
* Processes stay equal: what the weights follow is averaged over ``torch.distributed`` first.
* A task that is absent, or whose loss is exactly 0 in all processes, has no labels in the batch: its weight stays.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from COVIDMultitaskLib.errors import InputError
from training.learning.losses import sum_over_processes

Losses = Mapping[str, torch.Tensor]


class Weighting(nn.Module, ABC):
    """Weighs the losses of tasks.

    :param weights: of each task in the first step.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.tasks = tuple(weights)

    @abstractmethod
    def forward(self, losses: Losses, shared: Sequence[nn.Parameter] | None = None) -> torch.Tensor:
        """The loss to minimise.

        :param losses: scalars by task, all of the graph of this step.
        :param shared: parameters of the last layer that all tasks share; needed by ``gradient_norm`` only.
        :raises InputError: for a task that has no weight.
        """

    @property
    @abstractmethod
    def weights(self) -> dict[str, float]:
        """What each task's loss is multiplied by at present, for the log."""

    def _vector(self, losses: Losses) -> torch.Tensor:
        """The losses in the order of the tasks, float32; 0 for a task that is absent."""
        if unknown := sorted(set(losses) - set(self.tasks)):
            raise InputError(f"The task {unknown[0]} has no weight; add it to the weights of the configuration.")
        zero = next(iter(losses.values())).new_zeros(())
        return torch.stack([losses.get(task, zero).float() for task in self.tasks])

    def _by_task(self, values: torch.Tensor) -> dict[str, float]:
        return dict(zip(self.tasks, values.tolist(), strict=True))


class FixedWeighting(Weighting):
    """The weights stay as they are."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__(weights)
        self.register_buffer("_weights", torch.tensor(list(weights.values())))
        self._weights: torch.Tensor

    def forward(self, losses: Losses, shared: Sequence[nn.Parameter] | None = None) -> torch.Tensor:
        """The weighted sum."""
        return (self._weights * self._vector(losses)).sum()

    @property
    def weights(self) -> dict[str, float]:
        """As given."""
        return self._by_task(self._weights)


class UncertaintyWeighting(Weighting):
    """Learned log variances: Kendall, Gal and Cipolla, CVPR 2018.

    A task with loss L and log variance s adds exp(-s) L + s / 2, their equation for likelihoods of classes. At
    its minimum s = log 2L, where a task's weight is the inverse of twice its loss: the scale of a loss drops out.
    A task without labels has no gradient at its s, which only the optimiser's momentum from earlier steps still moves.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__(weights)
        self.log_variances = nn.Parameter(-torch.tensor(list(weights.values())).log())

    def forward(self, losses: Losses, shared: Sequence[nn.Parameter] | None = None) -> torch.Tensor:
        """The sum over the tasks that the batch has labels for; may be negative."""
        vector = self._vector(losses)
        present = mean_over_processes(vector.detach()) != 0
        terms = (-self.log_variances).exp() * vector + self.log_variances / 2
        return terms.masked_fill(~present, 0).sum()

    @property
    def weights(self) -> dict[str, float]:
        """exp(-s)."""
        return self._by_task((-self.log_variances.detach()).exp())


class GradientNormWeighting(Weighting):
    """GradNorm: Chen et al., ICML 2018. Tasks train at similar rates, whatever the scale of their losses.

    With G the norm of the gradient of a task's weighted loss at the shared parameters, and r the task's loss
    relative to its first one over the mean of that ratio, the weights descend the paper's sum of
    abs(G - mean(G) r ** asymmetry). They take a step of their own each time that the module is called while
    training, on their logarithms and with the loss in units of mean(G): so they stay positive, and the step does
    not depend on the scale of the losses. Then they are renormalised to sum up to the number of tasks; those of
    tasks without labels keep their values and only the others share the rest.

    :param asymmetry: how strongly a task that lags is pulled ahead; the paper's alpha.
    :param rate: length of a step.
    """

    def __init__(self, weights: Mapping[str, float], asymmetry: float = 1.5, rate: float = 0.025) -> None:
        super().__init__(weights)
        self.asymmetry, self.rate = asymmetry, rate
        start = torch.tensor(list(weights.values()))
        self.register_buffer("_weights", start * len(start) / start.sum())
        self.register_buffer("_first_losses", torch.zeros(len(start)))
        self._weights: torch.Tensor
        self._first_losses: torch.Tensor

    def forward(self, losses: Losses, shared: Sequence[nn.Parameter] | None = None) -> torch.Tensor:
        """The sum weighted by the present weights, which then take their step.

        The graph is kept for the caller's backward pass. Costs a backward pass from each task's loss to ``shared``.

        :raises ValueError: while training without shared parameters.
        """
        vector = self._vector(losses)
        total = (self._weights.clone() * vector).sum()
        if self.training and torch.is_grad_enabled():
            if not shared:
                raise ValueError("gradient_norm compares the tasks at shared parameters; none were given")
            self._step(mean_over_processes(vector.detach()), self._gradient_norms(losses, shared))
        return total

    @property
    def weights(self) -> dict[str, float]:
        """Their sum is the number of tasks."""
        return self._by_task(self._weights)

    def _gradient_norms(self, losses: Losses, shared: Sequence[nn.Parameter]) -> torch.Tensor:
        """Of each task's unweighted loss over all processes, at the shared parameters."""
        gradients = torch.stack([_flat_gradient(losses.get(task), shared) for task in self.tasks])
        return mean_over_processes(gradients).norm(dim=1)

    @torch.no_grad()
    def _step(self, losses: torch.Tensor, norms: torch.Tensor) -> None:
        # What is not finite is the training loop's to report; the weights must survive it.
        present = (losses != 0) & losses.isfinite() & norms.isfinite()
        self._first_losses.copy_(torch.where(present & (self._first_losses == 0), losses, self._first_losses))
        weighted = self._weights * norms
        ratios = losses / self._first_losses
        pace = (ratios / _mean_of(ratios, present)) ** self.asymmetry
        mean = _mean_of(weighted, present)
        slope = (weighted - mean * pace).sign() * weighted / mean
        moved = self._weights * (-self.rate * slope).exp()
        share = _sum_of(self._weights, present) / _sum_of(moved, present)
        usable = present & (mean > 0)
        self._weights.copy_(torch.where(usable, moved * share, self._weights))


WEIGHTINGS: dict[str, type[Weighting]] = {
    "fixed": FixedWeighting,
    "uncertainty": UncertaintyWeighting,
    "gradient_norm": GradientNormWeighting,
}


def make_weighting(name: str, weights: Mapping[str, float]) -> Weighting:
    """The weighting of that name.

    :param name: one of ``WEIGHTINGS``.
    :param weights: of each task in the first step; above 0, or also 0 where they are fixed.
    :raises InputError: for another name, no weights, or one out of range.
    """
    if name not in WEIGHTINGS:
        raise InputError(f"There is no task weighting {name}; choose one of {', '.join(WEIGHTINGS)}.")
    if not weights:
        raise InputError("No task has a weight; give the weights of the tasks in the configuration.")
    for task, weight in weights.items():
        if not math.isfinite(weight) or weight < 0:
            raise InputError(f"The weight of the task {task} is {weight:g}; give a finite one that is not negative.")
        if weight == 0 and name != "fixed":
            raise InputError(f"The weight of the task {task} is 0, which {name} cannot change; leave the task out.")
    return WEIGHTINGS[name](weights)


def mean_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over the processes of ``torch.distributed``."""
    summed = sum_over_processes(torch.cat([values.flatten(), values.new_ones(1)]))
    return (summed[:-1] / summed[-1]).reshape(values.shape)


def _flat_gradient(loss: torch.Tensor | None, parameters: Sequence[nn.Parameter]) -> torch.Tensor:
    """Of a loss at some parameters, as one vector; 0 where the loss is absent or does not depend on them."""
    if loss is None or not loss.requires_grad:
        return torch.cat([torch.zeros_like(one, dtype=torch.float32).flatten() for one in parameters])
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
    return torch.cat([one.float().flatten() for one in gradients])


def _sum_of(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    return values.masked_fill(~chosen, 0).sum()


def _mean_of(values: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    return _sum_of(values, chosen) / chosen.sum().clamp(min=1)
