"""What stages 2 and 3 are taught by.

============= ==================================================================================
pairs         squared error of the standardised embedding, frame by frame, of the clips of AudioSet
              whose features and released embedding are both known
agreement     cross-entropy between the scores that our classifier, which stays as it is, gives the
              student's frames, and the teachers' scores of the clip; a mean over classes
moments       squared difference between mean and covariance of the student's embeddings and those
              of the released ones
distillation  stage 3 only: stage 1's loss but for the maps, so that the trunk does not forget
guidance      squared error of the standardised embedding, patch by patch, to what the guide makes
              of the teacher's embedding (guiding.py); where there is a guide
============= ==================================================================================
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from audiosearch.classifier.network import import_keras
from tools.lite.distillation import answer_errors, embedding_statistics, mixed_shards
from tools.lite.shards import Shard, shard_folders

if TYPE_CHECKING:
    from tools.lite.adaptation import AdaptationConfig, Material

__all__ = ["class_weights", "trainer_class"]

_LEAST_SHARE = 1e-3

Floats = npt.NDArray[np.float32]


def class_weights(shards: Path, config: AdaptationConfig) -> Floats:
    """Return how much agreement on each class counts, (527,), 1 on average."""
    target = Shard(mixed_shards(shards, config.first)[0]).target
    share = target.mean(axis=0, dtype=np.float64) / 255
    weights = (share + _LEAST_SHARE) ** -config.balance
    return (weights / weights.mean()).astype(np.float32)


@functools.cache
def trainer_class() -> Any:
    """Return the model that is trained; a class of Keras, which is imported only when needed."""
    keras = import_keras()
    ops = keras.ops

    base: Any = keras.Model

    class Trainer(base):
        def __init__(
            self,
            parts: Mapping[str, Any],
            material: Material,
            config: AdaptationConfig,
            *,
            frozen: bool,
        ) -> None:
            super().__init__()
            self.adaptor = parts["adaptor"]
            self._frozen = frozen
            if not frozen:
                self.trunk = parts["trunk"]
            self._config = config
            self._judges = tuple(material.judges)
            released = material.released
            _, deviation = embedding_statistics(Shard(shard_folders(material.shards, "mixed")[0]))
            tensor = ops.convert_to_tensor
            self._mean, self._deviation = tensor(released.mean), tensor(released.deviation)
            self._covariance = tensor(released.covariance)
            kernel, bias = material.last_layer
            self._last_layer = tensor(kernel), tensor(bias)
            self._teacher_deviation = tensor(deviation)
            self._class_weights = tensor(class_weights(material.shards, config))
            # A function, not an attribute: what leads is no part of what is trained.
            self._lead = material.guide.values if material.guide and config.guidance else None
            names = ["pairs", "agreement", "moments"]
            names += [] if frozen else ["distillation"]
            names += ["guidance"] if self._lead else []
            self.trackers = {name: keras.metrics.Mean(name=name) for name in names}

        def call(self, inputs: Mapping[str, Any], training: bool = False) -> Any:
            patches = inputs["patches"]
            features = patches if self._frozen else self.trunk(patches, training=training)
            embedding = self.adaptor(features, training=training)
            if self._frozen:
                return {"embedding": embedding}
            return {"embedding": embedding, "guess": features}

        def compute_loss(
            self,
            x: Any = None,
            y: Any = None,
            y_pred: Any = None,
            sample_weight: Any = None,
            training: bool = True,
        ) -> Any:
            y = {name: ops.convert_to_tensor(values) for name, values in y.items()}
            embedding = y_pred["embedding"]
            losses = {
                "pairs": self._pair_loss(embedding, y),
                "agreement": self._agreement_loss(embedding, y),
                "moments": self._moment_loss(embedding, y),
            }
            if not self._frozen:
                losses["distillation"] = self._distillation_loss(y_pred["guess"], y)
            if self._lead is not None:
                losses["guidance"] = self._guidance_loss(embedding, y)
            total = 0.0
            for name, loss in losses.items():
                self.trackers[name].update_state(loss)
                total = total + getattr(self._config, name) * loss
            return total

        def _pair_loss(self, embedding: Any, y: Mapping[str, Any]) -> Any:
            count = y["is_pair"].shape[0]
            if not count:
                return ops.zeros(())
            error = (embedding[-count:] - y["released"]) / self._deviation
            weight = y["is_pair"]
            return ops.sum(ops.mean(ops.square(error), axis=1) * weight) / ops.maximum(
                ops.sum(weight), 1.0
            )

        def _agreement_loss(self, embedding: Any, y: Mapping[str, Any]) -> Any:
            clipped = ops.clip(embedding, -1.0, 127 / 128)
            frames = ops.take(clipped, y["frames"], axis=0) * ops.expand_dims(y["mask"], -1)
            total = 0.0
            for judge in self._judges:
                logits = judge.logits(frames, y["mask"])
                entropy = ops.softplus(logits) - y["target"] * logits
                entropy = ops.mean(entropy * self._class_weights, axis=1)
                total = total + ops.sum(entropy * y["is_clip"]) / ops.sum(y["is_clip"])
            return total / len(self._judges)

        def _moment_loss(self, embedding: Any, y: Mapping[str, Any]) -> Any:
            weight = ops.expand_dims(y["is_patch"], -1)
            count = ops.sum(weight)
            standard = (embedding - self._mean) / self._deviation * weight
            mean = ops.sum(standard, axis=0) / count
            centred = (standard - mean) * weight
            covariance = ops.matmul(ops.transpose(centred), centred) / count
            # A batch is small: what it must spread by chance is not an error. Off the diagonal the
            # differences are many and small, so they are summed by row.
            spread = ops.sum(ops.square(covariance - self._covariance), axis=1)
            return ops.mean(ops.square(mean)) + ops.mean(spread) / 16.0

        def _guidance_loss(self, embedding: Any, y: Mapping[str, Any]) -> Any:
            assert self._lead is not None
            wanted = ops.stop_gradient(self._lead(y["embedding"]))
            error = ops.mean(ops.square((embedding - wanted) / self._deviation), axis=1)
            return ops.sum(error * y["is_patch"]) / ops.sum(y["is_patch"])

        def _distillation_loss(self, guess: Any, y: Mapping[str, Any]) -> Any:
            weight = y["is_patch"]
            error, entropy = answer_errors(
                y["embedding"], guess, self._teacher_deviation, self._last_layer
            )
            loss = error + self._config.score_weight * entropy
            return ops.sum(loss * weight) / ops.sum(weight)

    return Trainer
