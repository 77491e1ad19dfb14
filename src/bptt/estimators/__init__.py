"""Gradient estimators: ways to cut a sequence for backpropagation through time, one file each."""

from bptt.estimators.adaptive import Adaptive
from bptt.estimators.base import Estimator, Update
from bptt.estimators.chunked import Chunked
from bptt.estimators.eprop import EProp
from bptt.estimators.full import Full
from bptt.estimators.randomized import Randomized
from bptt.estimators.rflo import RFLO
from bptt.estimators.rtrl import RTRL
from bptt.estimators.sliding import Sliding
from bptt.estimators.snap import SnAp
from bptt.estimators.uoro import UORO

__all__ = [
    "RFLO",
    "RTRL",
    "UORO",
    "Adaptive",
    "Chunked",
    "EProp",
    "Estimator",
    "Full",
    "Randomized",
    "Sliding",
    "SnAp",
    "Update",
]
