"""The tab "Gradient flow" of TensorBoard: the format of its curves, its server side and, in `assets`, its pages."""
