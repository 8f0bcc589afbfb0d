"""The classifier: the attention network, its training and evaluation, and the ONNX scorer.

Only `network` and `training` need Keras; scoring runs on ONNX Runtime.
"""
