"""Everything that touches torch, TRL, PEFT, transformers and accelerate.

Every private name of theirs that is reached for is reached for in this room.
"""
