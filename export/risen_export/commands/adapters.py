"""``risen adapters``: add adapters to a bundle, list them, or take one out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from risen_export.commands.export import shown_size
from risen_plugin.commands.options import json_option
from risen_plugin.kit.foreign import say
from risen_plugin.kit.jsonable import json_text


@click.group("adapters")
def adapters_group() -> None:
    """Add adapters to a bundle that keeps them apart, list them, or take one out.

    Such a bundle is made by `risen export --adapters separate`.
    """


@adapters_group.command("add")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("adapter", type=click.Path(path_type=Path))
@click.option("--name", help="By which it is asked for; the folder's name if unset.")
@click.option("--force", is_flag=True, help="Replace one of that name; trust another base's name.")
@json_option("Print JSON in place of the lines.")
def add_adapter(
    *, bundle: Path, adapter: Path, name: str | None, force: bool, as_json: bool
) -> None:
    """Add ADAPTER, a run's folder or a saved LoRA adapter, to BUNDLE.

    The graphs and their weights are not touched.
    """
    from risen_export.runtime.adapting import adapt

    added = adapt(bundle, adapter, name=name, force=force)
    if as_json:
        say(json_text({**asdict(added), "path": str(added.path)}))
        return
    entry = added.entry
    module, norm = entry["largest_delta"]
    moved = ", ".join(
        f"{variant} not run here"
        if measured is None
        else f"{measured['logits_moved_max']:.2g} ({variant})"
        for variant, measured in entry["check"].items()
    )
    say(
        f"added adapter {added.name} in {added.seconds:.1f} s: rank {entry['rank']} on "
        f"{', '.join(entry['targets'])}, {shown_size(entry['bytes'])}\n"
        f"its delta has the norm {entry['delta_norm']:.3g}, most of it in {module} ({norm:.3g}); "
        f"it moves logits by up to {moved}\n"
        f"next: risen generate {bundle} --adapter {added.name} PROMPT"
    )


@adapters_group.command("remove")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("name")
def remove_command(*, bundle: Path, name: str) -> None:
    """Take the adapter NAME out of BUNDLE."""
    from risen_export.runtime.adapting import remove_adapter

    remove_adapter(bundle, name)
    say(f"removed adapter {name} from {bundle}")


@adapters_group.command("list")
@click.argument("bundle", type=click.Path(path_type=Path))
@json_option()
def list_adapters(*, bundle: Path, as_json: bool) -> None:
    """List the adapters of BUNDLE."""
    from risen_export.bundles.adapters import listed, takes
    from risen_export.runtime.adapting import open_root

    root = open_root(bundle)
    entries = listed(root)
    if as_json:
        say(json_text(entries))
    elif not entries:
        say(
            f"{bundle} has no adapters; add one with: risen adapt {bundle} ADAPTER"
            if takes(root)
            else f"{bundle} takes no adapters: they were merged when it was exported; export it "
            "with --adapters separate"
        )
    for name, entry in {} if as_json else entries.items():
        targets = ", ".join(entry["targets"])
        say(f"{name}  rank {entry['rank']}  {shown_size(entry['bytes'])}  {targets}")
