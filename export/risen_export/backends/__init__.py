"""From a merged model to an ONNX graph, by one builder or another."""
