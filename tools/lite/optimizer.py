"""How all stages step: Adam, or Muon, which makes the step of each matrix orthogonal first.

Source of Muon: Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024),
which takes the kernel of a convolution as a matrix of its outputs by all else. Keras' own leaves
kernels to Adam.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from audiosearch.classifier.network import import_keras
from audiosearch.errors import InvalidArgumentError

__all__ = ["OPTIMIZERS", "build_optimizer", "check_optimizer"]

OPTIMIZERS = ("adam", "muon")
_LAYERS_OF_ADAM = ("standard_embedding",)  # the adaptor's last
# With 0.04 normalisation hardly moved, and the first map's error stayed twice as large.
_ADAM_RATE = 0.1
_ADAM_BETAS = 0.9, 0.99


def check_optimizer(name: str) -> None:
    """Refuse a name that is none of `OPTIMIZERS`.

    Raises
    ------
    InvalidArgumentError
        When it is not.
    """
    if name not in OPTIMIZERS:
        raise InvalidArgumentError(f"optimizer must be one of {', '.join(OPTIMIZERS)}.")


def build_optimizer(name: str, peak: float, steps: int, *, warmup: int, last: float = 0.01) -> Any:
    """Return an optimiser whose rate rises to its peak and falls from there as a cosine.

    Parameters
    ----------
    name : str
        One of `OPTIMIZERS`.
    peak : float
        Learning rate. With Muon it is that of matrices and kernels; biases, norms, and
        the layer that ends the adaptor are Adam's, at 0.1 of it.
    steps : int
        Steps in all.
    warmup : int
        How many of them rise, fewer than all.
    last : float
        What part of the peak the rate ends at, from 0 to 1.

    Returns
    -------
    keras.optimizers.Optimizer

    Raises
    ------
    InvalidArgumentError
        When there is no such optimiser, Keras is too old for it, or a number makes no sense.
    """
    check_optimizer(name)
    if not 0 <= warmup < steps or not 0 <= last <= 1:
        raise InvalidArgumentError(
            f"warmup must be at least 0 and less than steps, and last from 0 to 1, not {warmup}, "
            f"{steps} and {last}."
        )
    optimizers = import_keras().optimizers
    rising = {"warmup_target": peak, "warmup_steps": warmup} if warmup else {}
    rate = optimizers.schedules.CosineDecay(
        peak / 50 if warmup else peak, steps - warmup, alpha=last, **rising
    )
    if name == "adam":
        return optimizers.Adam(rate)
    return _muon_class()(
        rate,
        adam_lr_ratio=_ADAM_RATE,
        adam_beta_1=_ADAM_BETAS[0],
        adam_beta_2=_ADAM_BETAS[1],
        weight_decay=None,
        adam_weight_decay=None,
        exclude_layers=list(_LAYERS_OF_ADAM),
    )


@functools.cache
def _muon_class() -> Any:
    """Return the class; Keras is imported only when needed."""
    keras = import_keras()
    ops = keras.ops

    base: Any = getattr(keras.optimizers, "Muon", None)
    if not hasattr(base, "lr_adjust"):
        raise InvalidArgumentError(
            f"muon needs Keras 3.13 or newer; this is {keras.__version__}. Install a newer one, or "
            "take adam."
        )

    # The three methods are Keras' own steps of Muon; only what they make of kernels is changed.
    class KernelMuon(base):
        def _should_use_adamw(self, variable: Any) -> bool:
            if len(variable.shape) == 4:
                return False
            return bool(super()._should_use_adamw(variable))

        def zeropower_via_newtonschulz5(self, x: Any, steps: int) -> Any:
            shape = x.shape
            matrix = ops.cast(ops.reshape(x, (-1, shape[-1])), "bfloat16")
            made = super().zeropower_via_newtonschulz5(matrix, steps)
            return ops.reshape(ops.cast(made, x.dtype), shape)

        def lr_adjust(self, x: Any) -> Any:
            # As the source has it: a layer with more outputs than inputs moves further.
            inputs = math.prod(x.shape[:-1])
            return x * max(1.0, x.shape[-1] / inputs) ** 0.5

    return KernelMuon
