"""Settings of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field

from audiosearch.classifier.network import NetworkConfig
from audiosearch.errors import InvalidArgumentError

__all__ = ["PRECISIONS", "SCHEDULES", "TrainingConfig"]

SCHEDULES = ("cosine", "constant", "step")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a training run.

    Attributes
    ----------
    epochs : int
        How often as many clips are drawn as the training split has.
    batch_size : int
        Clips a step.
    learning_rate : float
        Peak of the schedule.
    schedule : str
        ``cosine`` falls to 0, ``step`` is divided by 10 after half and three quarters of the
        epochs, ``constant`` stays.
    warmup : float
        Epochs over which the learning rate rises to its peak.
    weight_decay : float
        Decoupled weight decay.
    mixup : float
        Parameter of the beta distribution that mixes two clips; 0 for none.
    splice : float
        Share of the mixed clips that take each frame whole from one of the two.
    noise : float
        Standard deviation of Gaussian noise on the embedding, whose values lie in -1 to 1.
    frame_dropout : float
        Share of frames left out of a clip; at least one stays.
    parents : float
        Target of a class above a true one in the ontology that is not labelled itself, 0 to 1.
        AudioSet leaves most parents out.
    balance : float
        Exponent of the class-balanced sampling weights, 0 (none) to 1 (full).
    label_smoothing : float
        Share by which targets are drawn towards 0.5.
    distillation : float
        Where there are teachers: how far targets are drawn from the labels to a teacher's scores,
        0 to 1.
    ema : float
        Momentum of the moving average of the weights, which is what is validated and kept; 0 for
        the weights themselves.
    patience : int
        Stop after so many epochs without a better validation mAP; 0 for never.
    snapshots : int
        Export each of the last so many epochs as well, to average their scores.
    validation : float
        Share of the clips held out for validation.
    seed : int
        Seed of everything random.
    precision : str
        Keras dtype policy: ``float32``, ``mixed_bfloat16`` or ``mixed_float16``.
    network : NetworkConfig
        Shape of the network.
    """

    epochs: int = 32
    batch_size: int = 256
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup: float = 1.0
    weight_decay: float = 0.0
    mixup: float = 0.5
    splice: float = 0.0
    noise: float = 0.0
    frame_dropout: float = 0.0
    parents: float = 0.0
    balance: float = 0.5
    label_smoothing: float = 0.0
    distillation: float = 0.9
    ema: float = 0.99
    patience: int = 0
    snapshots: int = 0
    validation: float = 0.1
    seed: int = 0
    precision: str = "float32"
    network: NetworkConfig = field(default_factory=NetworkConfig)

    def __post_init__(self) -> None:
        checks = {
            "epochs must be at least 1": self.epochs >= 1,
            "batch_size must be at least 2": self.batch_size >= 2,
            "learning_rate must be above 0": self.learning_rate > 0,
            f"schedule must be one of {', '.join(SCHEDULES)}": self.schedule in SCHEDULES,
            "warmup must be at least 0 and at most epochs": 0 <= self.warmup <= self.epochs,
            "weight_decay must be at least 0": self.weight_decay >= 0,
            "mixup must be at least 0": self.mixup >= 0,
            "splice must be from 0 to 1": 0 <= self.splice <= 1,
            "splice needs mixup above 0": self.splice == 0 or self.mixup > 0,
            "noise must be at least 0": self.noise >= 0,
            "frame_dropout must be from 0 up to 1": 0 <= self.frame_dropout < 1,
            "parents must be from 0 to 1": 0 <= self.parents <= 1,
            "balance must be from 0 to 1": 0 <= self.balance <= 1,
            "label_smoothing must be from 0 to 0.5": 0 <= self.label_smoothing <= 0.5,
            "distillation must be from 0 to 1": 0 <= self.distillation <= 1,
            "ema must be from 0 up to 1": 0 <= self.ema < 1,
            "patience must be at least 0": self.patience >= 0,
            "snapshots must be from 0 to epochs": 0 <= self.snapshots <= self.epochs,
            "validation must be above 0 and below 1": 0 < self.validation < 1,
            f"precision must be one of {', '.join(PRECISIONS)}": self.precision in PRECISIONS,
        }
        for sentence, holds in checks.items():
            if not holds:
                raise InvalidArgumentError(f"{sentence}.")
