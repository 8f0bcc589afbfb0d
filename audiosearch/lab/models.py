"""The models of the lab: what each takes, what kind of network it is, and how it is trained.

================= ============== ==================================================================
name              feature        what it is
================= ============== ==================================================================
linear-lite       lite           logistic regression of mean, deviation and maximum over time
mlp-lite          lite           a network of two hidden layers on the same
attention-lite    lite           attention over the frames
prototypes        lite-hidden    the nearest class mean; from one example a class
transfer          lite-layers    logistic regression on inner layers of the bundled embedder
transfer-tuned    log-mel        the bundled embedder's convolutions, the last of them trained on
ann-librosa26     librosa26      a network of three hidden layers
cnn-logmel        log-mel        four convolutional blocks
cnn-logmel-stereo log-mel-stereo the same on the spectrograms of left and right
resnet-logmel     log-mel        a residual network of eight convolutions
cnn-image         image          four convolutional blocks on an 8-bit picture
cnn-wave          waveform       one-dimensional convolutions
lstm-wave         waveform       an LSTM over frames of 20 ms
mobilenet         image          Keras's MobileNetV2 with ImageNet weights, trained on
mobilenet-frozen  image          the same, as it is
linear-vggish     vggish         as linear-lite, on the real VGGish
mlp-vggish        vggish         as mlp-lite, on the same
attention-vggish  vggish         as attention-lite, on the same
================= ============== ==================================================================
"""

from __future__ import annotations

from dataclasses import dataclass

from audiosearch.errors import InvalidArgumentError, printable

__all__ = ["MODELS", "ModelSpec", "get_model"]


@dataclass(frozen=True)
class ModelSpec:
    """A model that can be chosen.

    Attributes
    ----------
    name : str
        As `get_model` takes it.
    feature : str
        What it takes, as `audiosearch.own.features.get_feature` names it.
    kind : str
        ``linear`` and ``prototypes`` are fitted at once, ``network`` is trained in epochs.
    network : str
        Of a network: which one, as `audiosearch.lab.networks.build_network` names it.
    epochs, learning_rate, mixup :
        Of a network: what it is trained with where nothing else is said.
    pooled : bool
        Whether it takes mean, deviation and maximum over time.
    scaling : (float, float), optional
        What is taken from each value, and what the rest is multiplied by; where None, the set's own
        mean and deviation.
    """

    name: str
    feature: str
    kind: str = "network"
    network: str = ""
    epochs: int = 40
    learning_rate: float = 1e-3
    mixup: float = 0.2
    pooled: bool = False
    scaling: tuple[float, float] | None = None


_ALL = (
    ModelSpec("linear-lite", "lite", "linear", pooled=True),
    ModelSpec("mlp-lite", "lite", network="mlp", pooled=True),
    ModelSpec("attention-lite", "lite", network="attention"),
    ModelSpec("prototypes", "lite-hidden", "prototypes", pooled=True),
    ModelSpec("transfer", "lite-layers", "linear", pooled=True),
    ModelSpec(
        "transfer-tuned",
        "log-mel",
        network="lite-trunk",
        epochs=15,
        learning_rate=3e-4,
        scaling=(0.0, 1.0),
    ),
    ModelSpec("ann-librosa26", "librosa26", network="ann", epochs=60, mixup=0.0),
    ModelSpec("cnn-logmel", "log-mel", network="cnn", learning_rate=2e-3),
    ModelSpec("cnn-logmel-stereo", "log-mel-stereo", network="cnn", learning_rate=2e-3),
    ModelSpec("resnet-logmel", "log-mel", network="resnet", learning_rate=2e-3),
    ModelSpec("cnn-image", "image", network="cnn", learning_rate=2e-3),
    ModelSpec("cnn-wave", "waveform", network="cnn-wave"),
    ModelSpec("lstm-wave", "waveform", network="lstm-wave", epochs=20, mixup=0.0),
    ModelSpec(
        "mobilenet",
        "image",
        network="mobilenet",
        epochs=20,
        learning_rate=3e-4,
        scaling=(0.5, 2.0),
    ),
    ModelSpec(
        "mobilenet-frozen",
        "image",
        network="mobilenet-frozen",
        epochs=20,
        scaling=(0.5, 2.0),
    ),
    ModelSpec("linear-vggish", "vggish", "linear", pooled=True),
    ModelSpec("mlp-vggish", "vggish", network="mlp", pooled=True),
    ModelSpec("attention-vggish", "vggish", network="attention"),
)

MODELS = {model.name: model for model in _ALL}


def get_model(name: str) -> ModelSpec:
    """Return a model by its name.

    Raises
    ------
    InvalidArgumentError
        When there is none of that name.
    """
    if name not in MODELS:
        raise InvalidArgumentError(
            f"There is no model '{printable(name)}'. There is: {', '.join(MODELS)}."
        )
    return MODELS[name]
