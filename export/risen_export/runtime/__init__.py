"""Answer from a bundle, on onnxruntime and numpy alone."""
