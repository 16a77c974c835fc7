"""Training: TRL's GRPO, answers, losses, the clean room around a model.

TRL, accelerate and the private names of transformers and PEFT are reached for in this room alone;
``seam`` lists them.
"""
