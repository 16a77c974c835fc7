"""Export a model folder with optimum-onnx, in an environment that has it.

Run as ``python optimum_worker.py MODEL OUT``; it imports nothing of risen.
"""

import sys


def main() -> None:
    """Write ``model.onnx``, with a past, of the model in the first folder to the second."""
    # Of the other environment.
    from optimum.exporters.onnx import main_export  # pyright: ignore[reportMissingImports]

    main_export(
        sys.argv[1],
        output=sys.argv[2],
        task="text-generation-with-past",
        library_name="transformers",
        framework="pt",
        device="cpu",
        dtype="fp32",
        do_validation=False,
        local_files_only=True,
    )


if __name__ == "__main__":
    main()
