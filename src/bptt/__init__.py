"""Backpropagation through time: train recurrent networks, cut the sequence, see what the cut does to the gradient."""
