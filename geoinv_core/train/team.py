"""Several processes that train one model, started by torchrun; alone, everything here does nothing."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Team:
    """This process among those of a training."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def join(cls) -> Team:
        """Meet the other processes that torchrun started (its variables say so), each on a GPU of its own."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        cuda = torch.cuda.is_available()
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(device)
        if size > 1 and not torch.distributed.is_initialized():
            # This module's default arguments would keep the group, and with it gloo's threads, alive until
            # Python ends, had it been imported later (optimizers do so): they abort whom they outlive.
            importlib.import_module("torch.distributed.nn")
            torch.distributed.init_process_group("nccl" if cuda else "gloo")
        return cls(int(os.environ.get("RANK", "0")) if size > 1 else 0, size, device)

    @property
    def leads(self) -> bool:
        """Whether this process keeps the checkpoints and the log."""
        return self.rank == 0

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        together = torch.cat([g.flatten() for g in gradients])
        torch.distributed.all_reduce(together)
        for gradient, mean in zip(
            gradients, (together / self.size).split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(mean.view_as(gradient))

    def agree(self, value: float) -> float:
        """The leader's value, in every process."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(shared, 0)
        return float(shared)

    def leave(self) -> None:
        """Part when all have come this far, and end the threads that exchanged."""
        if self.size > 1:
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()
