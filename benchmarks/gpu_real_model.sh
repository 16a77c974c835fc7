#!/usr/bin/env bash
# The real-model benchmark on one GPU (how long it takes there was not measured):
#
#     bash benchmarks/gpu_real_model.sh MODEL WORK_FOLDER IFEVAL.jsonl [STEPS]
#
# Trains RISEN's arm of benchmarks.real_model on the GPU, in bf16, with answers by TRL's continuous
# batching and twice as many to a step, and measures the model before and after as on a CPU. Needs
# this environment's packages with a torch for CUDA and the extra `cpu`. Run again, it goes on with
# the stage that it was cut off in. Without a GPU it ends with 3.
set -eu
model=$1 work=$2 ifeval=$3 steps=${4:-60}
cd "$(dirname "$0")/.."
if ! command -v nvidia-smi > /dev/null; then
    echo "there is no NVIDIA GPU here; nothing was run"
    exit 3
fi
nvidia-smi --query-gpu=name --format=csv,noheader
"${PYTHON:-python3}" -m benchmarks.real_model --model "$model" --out "$work" --ifeval "$ifeval" \
    --arms base,risen --seeds 1 --steps "$steps"
