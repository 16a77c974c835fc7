"""As in vLLM, where TRL looks for it."""


class StructuredOutputsParams:
    def __init__(self, **settings: object) -> None:
        self.settings = settings
