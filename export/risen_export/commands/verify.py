"""``risen verify``: measure a bundle again, anywhere, without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from risen_plugin.commands.options import json_option
from risen_plugin.errors import ExportError
from risen_plugin.kit.foreign import say
from risen_plugin.kit.jsonable import json_text

if TYPE_CHECKING:
    from risen_export.gate.verifying import Verified


@click.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--precision", help="One variant of the bundle; all of them if left out.")
@json_option()
@click.option("--quiet", is_flag=True, help="Show no progress bar.")
def verify_command(*, bundle: Path, precision: str | None, as_json: bool, quiet: bool) -> None:
    """Measure BUNDLE again on this machine, against what its model answered.

    Checks the hash of every file, asks each graph what the model was asked when it was exported,
    and judges the answers by the bundle's own limits. Needs no PyTorch. A variant that was built
    and not run is marked as run.
    """
    from risen_export.gate.verifying import verify_bundle

    found = verify_bundle(bundle, precision, progress=not quiet)
    if as_json:
        say(json_text({name: one.as_json() for name, one in found.items()}))
    else:
        for name, one in found.items():
            say(f"{name}: {_line(one)}")
    failed = [name for name, one in found.items() if one.failures]
    if failed:
        raise ExportError(
            f"{bundle}: {', '.join(failed)} is not what was exported; copy or export it again"
        )


def _line(one: Verified) -> str:
    measured: Any = one.measured
    if measured is None:
        return f"not run: {one.remark}"
    text = (
        f"{measured.agreement:.1%} of {measured.answered} tokens agree, divergence "
        f"{measured.kl_mean:.2g}"
    )
    if measured.perplexity_ratio is not None:
        text += f", perplexity x {measured.perplexity_ratio:.4f}"
    if measured.adherence is not None:
        text += f", follows {measured.followed}"
    verdict = "; ".join(one.failures) or "passes"
    return f"{text}: {verdict}" + (f" ({one.remark})" if one.remark else "")
