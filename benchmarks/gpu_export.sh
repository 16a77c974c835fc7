#!/usr/bin/env bash
# The whole check of a bundle for CUDA:
#
#     bash benchmarks/gpu_export.sh MODEL WORK_FOLDER
#
# Builds fp16, bf16 and int4 for CUDA with the `risen` of this environment (extra `cpu`; no GPU is
# needed), unless WORK_FOLDER/bundle is there already, built elsewhere. Then, on a machine with an
# NVIDIA GPU, makes an environment with the extra `gpu` (onnxruntime and onnxruntime-gpu must not lie
# in one) over the packages of PYTHON, measures each graph on the GPU with `risen verify`, which
# completes the mark "built, not run", and times onnxruntime-genai against PyTorch's generate.
# Without a GPU it ends with 3 after the first part.
set -eu
model=$1 work=$2
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$work"
if [ ! -f "$work/bundle/manifest.json" ]; then
    "${RISEN:-risen}" export "$model" "$work/bundle" --target cuda --precision fp16,bf16,int4 --force
fi
if ! command -v nvidia-smi > /dev/null; then
    echo "there is no NVIDIA GPU here; $work/bundle was built, not run"
    exit 3
fi
if [ ! -x "$work/gpu/bin/risen" ]; then
    "${PYTHON:-python3}" -m venv --system-site-packages "$work/gpu"
    "$work/gpu/bin/pip" install -q "${here}[gpu]"
fi
nvidia-smi --query-gpu=name --format=csv,noheader
"$work/gpu/bin/risen" verify "$work/bundle"
"$work/gpu/bin/python" "$here/benchmarks/gpu_speed.py" "$model" "$work/bundle"
