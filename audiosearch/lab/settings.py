"""Settings of a lab training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from audiosearch.errors import InvalidArgumentError
from audiosearch.lab.augmentation import USUAL_AUGMENTATIONS, check_augmentations
from audiosearch.lab.models import ModelSpec, get_model
from audiosearch.own.waveforms import SHORT

__all__ = ["BALANCES", "LabConfig"]

SCHEDULES = ("cosine", "constant", "step")
BALANCES = ("weights", "none")
DEVICES = ("auto", "cpu", "gpu")


@dataclass(frozen=True)
class LabConfig:
    """Settings of a training; None takes what suits the model, or the data.

    Attributes
    ----------
    model : str
        One of `audiosearch.lab.models.MODELS`.
    seconds : float or None
        Clip length; where None, the 95th percentile of the sounds' lengths, 0.1 to 10 s.
    short : str
        What happens to a shorter sound: ``repeat`` or ``pad``.
    epochs, batch_size : int or None, int
        How often each sound is seen, and clips a step.
    learning_rate : float or None
        Peak of the schedule.
    schedule : str
        ``cosine`` falls to 0, ``step`` is divided by 10 after half and three quarters of the
        epochs, ``constant`` stays.
    mixup : float or None
        Parameter of the beta distribution that mixes two clips; 0 for none.
    augment : bool
        Whether spectrograms and waveforms are changed anew in each epoch.
    augmentations : str
        How, separated by commas: of `audiosearch.lab.augmentation.AUGMENTATIONS`.
    balance : str
        ``weights``: a class counts in the loss by the inverse of how often it occurs; where sounds
        have several classes, so do, for each class, the sounds that have it and those that have
        not. ``none``: all sounds count the same.
    patience : int
        Stop after so many epochs without a better validation loss; 0 for never. It needs a
        validation.
    validation : float
        Share of the sounds held out to choose the best epoch; 0 keeps the last epoch.
    seed : int
        Seed of everything random.
    device : str
        ``auto``, ``cpu`` or ``gpu``.
    """

    model: str = "linear-lite"
    seconds: float | None = None
    short: str = "repeat"
    epochs: int | None = None
    batch_size: int = 32
    learning_rate: float | None = None
    schedule: str = "cosine"
    mixup: float | None = None
    augment: bool = True
    augmentations: str = ",".join(USUAL_AUGMENTATIONS)
    balance: str = "weights"
    patience: int = 0
    validation: float = 0.15
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        get_model(self.model)
        for name, known in (
            ("short", SHORT),
            ("schedule", SCHEDULES),
            ("balance", BALANCES),
            ("device", DEVICES),
        ):
            if getattr(self, name) not in known:
                raise InvalidArgumentError(
                    f"{name} must be one of {', '.join(known)}, not '{getattr(self, name)}'."
                )
        check_augmentations(self.wanted_augmentations)
        if self.batch_size < 2:
            raise InvalidArgumentError(f"batch_size must be at least 2, not {self.batch_size}.")
        if self.epochs is not None and self.epochs < 1:
            raise InvalidArgumentError(f"epochs must be at least 1, not {self.epochs}.")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise InvalidArgumentError(f"learning_rate must be above 0, not {self.learning_rate}.")
        if self.mixup is not None and not 0 <= self.mixup < math.inf:
            raise InvalidArgumentError(f"mixup must be 0 or more, and finite, not {self.mixup}.")
        if self.patience < 0:
            raise InvalidArgumentError(f"patience must be 0 or more, not {self.patience}.")
        if not 0 <= self.validation < 1:
            raise InvalidArgumentError(f"validation must be from 0 up to 1, not {self.validation}.")
        if self.patience and not self.validation:
            raise InvalidArgumentError(
                "Where nothing is held out (--validation 0), there is no validation loss that "
                "--patience could wait for. Leave one of the two out."
            )
        if not 0 <= self.seed < 2**32:
            raise InvalidArgumentError(f"seed must be from 0 up to 2**32 - 1, not {self.seed}.")

    @property
    def spec(self) -> ModelSpec:
        """The model."""
        return get_model(self.model)

    @property
    def wanted_augmentations(self) -> tuple[str, ...]:
        """Augmentations by name; none where there is to be none."""
        if not self.augment:
            return ()
        return tuple(name.strip() for name in self.augmentations.split(",") if name.strip())

    @property
    def wanted_epochs(self) -> int:
        """Epochs, with the model's own where none were said."""
        return self.epochs or self.spec.epochs

    @property
    def wanted_rate(self) -> float:
        """Peak learning rate, with the model's own where none was said."""
        return self.learning_rate or self.spec.learning_rate

    @property
    def wanted_mixup(self) -> float:
        """Mixup, with the model's own where none was said."""
        return self.spec.mixup if self.mixup is None else self.mixup
