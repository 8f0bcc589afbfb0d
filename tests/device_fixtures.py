"""Trainings in processes of their own: on two devices, or in two processes of PyTorch.

Keras takes its backend once a process. Everything runs on the CPU: TensorFlow on two logical CPUs,
JAX on two host devices, PyTorch in two processes over gloo.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY

BACKENDS = ("tensorflow", "jax", "torch")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
# TensorFlow has as many CPUs as it is told, from within the process only.
TWO_CPUS = """
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
"""
COMMAND = """
import sys
from audiosearch.cli import main
main(sys.argv[1:])
"""


def need(backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"no {backend}: the package is not installed")


def environment(backend: str) -> dict[str, str]:
    """Return the environment of a process with a backend on the CPU, where JAX has two devices."""
    return os.environ | {
        "KERAS_BACKEND": backend,
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "OMP_NUM_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": str(REPOSITORY),
    }


def python(backend: str, *args: object, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    """Run Python with a backend on the CPU."""
    return subprocess.run(
        [sys.executable, *map(str, args)],
        env=environment(backend),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
