"""From the name that a user wrote to one model in memory, its adapters in its weights."""
