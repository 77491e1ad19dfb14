"""Bias, noise, time and memory of every chunk size, measured over training, and a recommended one.

In a notebook it needs neither Hydra nor Lightning:

    moments = [measure(model, task, num_batches=5)]                                     # at the present weights
    moments = measure_training(model, task, optimizer, num_updates=500, num_batches=5)  # or over training
    print(advice(moments, delta=0.1))
"""

from bptt.chunk_size.advice import advice, duration, memory, plain_chunks, recommend, worst_bias
from bptt.chunk_size.candidates import Candidate, candidate, candidates
from bptt.chunk_size.files import write_csv, write_json
from bptt.chunk_size.measurement import Cost, Moment, measure, measure_training

__all__ = [
    "Candidate",
    "Cost",
    "Moment",
    "advice",
    "candidate",
    "candidates",
    "duration",
    "measure",
    "measure_training",
    "memory",
    "plain_chunks",
    "recommend",
    "worst_bias",
    "write_csv",
    "write_json",
]
