"""The TensorBoard tab "Gradient flow": the format of its curves, its server side and, in `assets`, its web page."""
