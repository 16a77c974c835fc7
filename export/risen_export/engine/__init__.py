"""Answer many requests at once on plain onnxruntime and numpy, without torch.

``requests`` says what is asked and what comes back, ``engine`` runs it, ``scheduler`` and
``sampling`` decide, ``cache`` holds the keys and values.
"""
