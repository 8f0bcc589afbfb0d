"""The real VGGish, by Google: fetched once, converted to ONNX, used without TensorFlow.

============== =====================================================================================
`layers`       its nine layers: names, shapes, and what identifies a set of weights
`sources`      reads the weights from a SavedModel or a checkpoint (needs TensorFlow)
`network`      the same network in Keras 3, for training (needs TensorFlow)
`graph`        the same network in ONNX, and its int8 variant (needs onnx)
`postprocess`  PCA, clipping and 8-bit quantisation
`store`        where the installed files lie, and whether they are whole
`install`      fetches, converts, checks and stores
`checks`       Google's smoke test, and the agreement of the int8 variant
`embedder`     the embedder itself
============== =====================================================================================

Sources: Hershey et al., "CNN architectures for large-scale audio classification", ICASSP 2017
(arXiv:1609.09430), and https://github.com/tensorflow/models/tree/master/research/audioset/vggish.
"""
