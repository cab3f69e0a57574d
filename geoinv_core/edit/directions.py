"""Directions in a generator's code: edits for models that know no labels.

A file of directions lies beside its model as NAME.directions.safetensors. Each tensor is one direction,
float32 [w_dim] (for all layers) or [num_ws, w_dim]: what a value of 1 adds to w_plus. The metadata keys are
"geoinv-directions" (format version), "generator" (SHA-256 of the model file, or absent) and "ranges" (JSON:
name -> [lowest, highest], where they differ from -3 to 3) and "accuracy" (JSON: name -> share of held-out
heads that a fitted direction tells rightly). `train.directions` makes such files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from geoinv_core.errors import EditError, ModelError

FORMAT = "1"
RANGE = (-3.0, 3.0)


@dataclass(frozen=True, eq=False)
class Directions:
    """Named directions of one generator; none at all is fine."""

    moves: Mapping[str, Tensor] = field(default_factory=dict)
    """float32 [num_ws, w_dim] each"""
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    accuracy: Mapping[str, float] = field(default_factory=dict)
    """0..1, of those that were fitted to scores"""

    def __contains__(self, name: object) -> bool:
        return name in self.moves

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.moves)

    def ranges(self) -> dict[str, tuple[float, float, float]]:
        """Every direction: (lowest, highest, neutral)."""
        return {name: (*self.limits.get(name, RANGE), 0.0) for name in self.moves}

    def apply(self, w_plus: Tensor, now: Mapping[str, float], wanted: Mapping[str, float]) -> Tensor:
        """The code moved from the values `now` to the values `wanted`.

        Args: w_plus: [1, num_ws, w_dim]. Raises: EditError for a value out of range.
        """
        for name, value in wanted.items():
            low, high, _ = self.ranges()[name]
            if not low <= value <= high:
                raise EditError(
                    f"{name} cannot be {value} because it runs from {low:g} to {high:g}; "
                    "choose a value between."
                )
            w_plus = w_plus + (value - now.get(name, 0.0)) * self.moves[name].to(w_plus)
        return w_plus


def save_directions(directions: Directions, path: Path, generator: str | None = None) -> Path:
    """Write a file of directions; `generator` is the SHA-256 of the model file they belong to."""
    header = {"geoinv-directions": FORMAT, "ranges": json.dumps(dict(directions.limits))}
    header["accuracy"] = json.dumps(dict(directions.accuracy))
    if generator is not None:
        header["generator"] = generator
    partial = path.with_name(path.name + ".partial")
    save_file({name: move.float().contiguous() for name, move in directions.moves.items()}, partial, header)
    partial.replace(path)
    return path


def load_directions(path: Path, generator: str, shape: tuple[int, int]) -> Directions:
    """Read a file of directions.

    Args: generator: SHA-256 of the model file; shape: (num_ws, w_dim) of the model.
    Raises: ModelError when it is damaged, something else, or of another model.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            if header.get("geoinv-directions") != FORMAT:
                raise ModelError(
                    f"{path.name} is no file of directions that this version reads; make it again."
                )
            moves = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 -- no mapping
        ranges = json.loads(header.get("ranges", "{}"))
        limits = {str(name): (float(low), float(high)) for name, (low, high) in ranges.items()}
        accuracy = {str(n): float(v) for n, v in json.loads(header.get("accuracy", "{}")).items()}
    except (OSError, SafetensorError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"The directions {path.name} are damaged ({error}); get the file again.") from error
    wrong = [
        n for n, move in moves.items() if move.shape not in (shape, shape[1:]) or not move.isfinite().all()
    ]
    if wrong or header.get("generator", generator) != generator:
        reason = f"{wrong[0]} does not fit" if wrong else "they name another file"
        raise ModelError(
            f"The directions {path.name} were made for another model ({reason}); "
            "get both from the same place."
        )
    return Directions({name: move.expand(shape) for name, move in moves.items()}, limits, accuracy)


def unknown(name: str, directions: Directions, model: str) -> EditError:
    """Why a model without labels cannot follow an edit."""
    if not directions.moves:
        return EditError(
            f"{name} cannot be set because {model} has neither labels nor directions; "
            "put directions beside it as NAME.directions.safetensors, or use the default model."
        )
    known = ", ".join(directions.names[:8])
    return EditError(f"{name} cannot be set because {model} has no such direction; it has {known}.")
