"""``risen serve``: answer over HTTP, in the words of the OpenAI API."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from risen_plugin.commands.options import bytes_of, nested, parse_options, seconds_of
from risen_plugin.errors import ConfigError
from risen_plugin.kit.foreign import say

if TYPE_CHECKING:
    from risen_export.engine.engine import Engine
    from risen_export.serving.service import ServeSettings

_KEY = "RISEN_API_KEY"
_BACKLOG = 2048  # connections, as uvicorn's own
_HERE = ("localhost", "127.0.0.1", "[::1]")


@click.command("serve")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--precision", help="Which graph of the bundle; its fp32 one if there is one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
@click.option("--name", help="Of the base among models; the bundle folder's name if unset.")
@click.option(
    "--rows", type=click.IntRange(min=1), default=16, show_default=True, help="Answers at once."
)
@click.option(
    "--context", type=click.IntRange(min=1), help="Most tokens of a prompt with its answer."
)
@click.option(
    "--memory", default="2GiB", show_default=True, help="Of keys and values, such as 512MB."
)
@click.option(
    "--waiting",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Answers that may wait for their turn; more are refused with 429.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Of one operator.")
@click.option(
    "--api-key",
    "key_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"API keys, one a line; else that of {_KEY}, if it is set.",
)
@click.option("--open", "is_open", is_flag=True, help="Ask whoever may reach HOST for no key.")
@click.option(
    "--adapters",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="A folder under which requests may load adapters from.",
)
@click.option(
    "-o",
    "--option",
    "options",
    metavar="REWARD.NAME=VALUE",
    multiple=True,
    help="An option of a reward that requests may name.",
)
@click.option("--timeout", default="10m", show_default=True, help="Of one request.")
@click.option(
    "--grace",
    default="30s",
    show_default=True,
    help="In which what was begun is finished when the server is to stop.",
)
@click.option("--max-body", default="2MiB", show_default=True, help="Of a request.")
@click.option("--rate", type=click.IntRange(min=1), help="Requests a minute of one key or address.")
@click.option(
    "--log-requests",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write prompts and answers there, as rows for `risen adapt`.",
)
@click.option("--log-size", default="64MiB", show_default=True, help="Of that file.")
@click.option(
    "--redact", metavar="REGEX", multiple=True, help="What is left out of it; may be given often."
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Of the lines on standard error.",
)
@click.option("--no-check", is_flag=True, help="Do not compare files with the manifest.")
def serve_command(**given: Any) -> None:
    """Serve BUNDLE over HTTP, in the words of the OpenAI API.

    BUNDLE is a folder that `risen export` wrote; its adapters are models beside it. The address
    shows a page to try them on. The server stops at Ctrl-C or SIGTERM, once what was begun is
    finished.
    """
    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"serving needs {error.name}, which is not installed: pip install 'risen-plugin[serve]'"
        ) from error
    _run(**given)


def _run(
    *,
    bundle: Path,
    host: str,
    port: int,
    options: tuple[str, ...],
    log_format: str,
    **given: Any,
) -> None:
    from risen_export.serving.running import listen, log_to_stderr, make_service, serve

    settings = _settings(host, **given)
    rewards = _rewards(options)
    listening = listen(host, port)
    try:
        engine = _engine(bundle, given)
        service = make_service(engine, settings, name=bundle.resolve().name, rewards=rewards)
        log_to_stderr(as_json=log_format == "json")
        names = ", ".join([service.models.base, *service.models.adapters])
        listening.listen(_BACKLOG)  # whoever reads the line below may connect at once
        shown = f"[{host}]" if ":" in host else host
        say(
            f"serving {names} on http://{shown}:{listening.getsockname()[1]}: "
            f"{engine.settings.rows} answers at once of up to {engine.context} tokens, "
            f"{engine.stats().cache_bytes / 2**20:.0f} MiB of keys and values"
        )
        serve(service, listening)
    finally:
        listening.close()


def _settings(host: str, **given: Any) -> ServeSettings:
    from risen_export.serving.running import keys_of
    from risen_export.serving.service import ServeSettings

    from_file = given["key_file"]
    named = os.environ.get(_KEY, "").strip()
    keys = keys_of(from_file) if from_file is not None else (named,) if named else ()
    is_here = host in ("localhost", "::1") or host.startswith("127.")
    if not keys and not is_here and not given["is_open"]:
        raise ConfigError(
            f"others can reach {host}: give --api-key FILE, or set {_KEY}; --open asks for no key"
        )
    return ServeSettings(
        name=given["name"],
        keys=keys,
        is_open=given["is_open"],
        adapters=given["adapters"],
        most_bytes=bytes_of("--max-body", given["max_body"]),
        timeout=seconds_of("--timeout", given["timeout"]),
        grace=seconds_of("--grace", given["grace"]),
        rate=given["rate"],
        # A name that somebody else's page has resolve to this machine is not one of ours.
        hosts=(*_HERE, host) if is_here else None,
        log_requests=given["log_requests"],
        log_bytes=bytes_of("--log-size", given["log_size"]),
        redact=given["redact"],
    )


def _engine(bundle: Path, given: dict[str, Any]) -> Engine:
    from risen_export.engine.engine import Engine
    from risen_export.engine.settings import EngineSettings

    settings = EngineSettings(
        rows=given["rows"],
        context=given["context"],
        memory=bytes_of("--memory", given["memory"]),
        waiting=given["waiting"],
        threads=given["threads"],
    )
    return Engine.open(bundle, given["precision"], settings, check_hashes=not given["no_check"])


def _rewards(pairs: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Options of rewards, by the reward's name."""
    made: dict[str, dict[str, Any]] = {}
    for pair, value in parse_options(pairs).items():
        reward, dot, name = pair.partition(".")
        if not dot:
            raise ConfigError(f"the option '{pair}' has to name its reward: REWARD.NAME=VALUE")
        made.setdefault(reward, {})[name] = value
    return {reward: nested(found) for reward, found in made.items()}
