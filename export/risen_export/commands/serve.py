"""``risen serve``: answer over HTTP, in the words of the OpenAI API."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from risen_plugin.commands.options import NearChoice, bytes_of, nested, parse_options, seconds_of
from risen_plugin.errors import ConfigError
from risen_plugin.kit.foreign import say

if TYPE_CHECKING:
    from socket import socket

    from risen_export.engine.settings import EngineSettings
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
    type=NearChoice(["text", "json"]),
    default="text",
    show_default=True,
    help="Of the lines on standard error.",
)
@click.option("--no-check", is_flag=True, help="Do not compare files with the manifest.")
@click.option(
    "--ray",
    "on_ray",
    is_flag=True,
    help="Answer with replicas on Ray Serve: of the cluster in RAY_ADDRESS, or of this machine.",
)
@click.option("--replicas", type=click.IntRange(min=1), help="How many; 1 if unset.")
@click.option(
    "--min-replicas", type=click.IntRange(min=1), help="That are kept when little is asked."
)
@click.option(
    "--max-replicas", type=click.IntRange(min=1), help="That there may be when much is asked."
)
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
    from risen_export.engine.engine import Engine
    from risen_export.serving.running import listen, log_to_stderr, make_service, serve

    _replicas(given)
    settings = _settings(host, **given)
    rewards = _rewards(options)
    listening = listen(host, port)
    if given["on_ray"]:
        log_to_stderr(as_json=log_format == "json")
        with listening:
            _run_on_ray(bundle, settings, rewards, given, listening)
        return
    try:
        engine = Engine.open(
            bundle,
            given["precision"],
            _engine_settings(given),
            check_hashes=not given["no_check"],
        )
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


def _engine_settings(given: dict[str, Any]) -> EngineSettings:
    from risen_export.engine.settings import EngineSettings

    return EngineSettings(
        rows=given["rows"],
        context=given["context"],
        memory=bytes_of("--memory", given["memory"]),
        waiting=given["waiting"],
        threads=given["threads"],
    )


def _replicas(given: dict[str, Any]) -> tuple[int, int]:
    """The fewest and the most replicas."""
    count, least, most = (given[name] for name in ("replicas", "min_replicas", "max_replicas"))
    if not given["on_ray"] and (count or least or most):
        raise ConfigError("replicas are those of Ray Serve: add --ray")
    if given["on_ray"] and given["adapters"]:
        raise ConfigError(
            "--adapters is for adapters that requests load, and one replica alone would know of "
            "them; with --ray put adapters into the bundle: risen adapt BUNDLE ADAPTER"
        )
    if count and (least or most):
        raise ConfigError("give --replicas, or --min-replicas and --max-replicas")
    if least and not most:
        raise ConfigError("--min-replicas needs --max-replicas")
    if least and most and least > most:
        raise ConfigError(f"--min-replicas {least} is more than --max-replicas {most}")
    return (least or 1, most) if most else (count or 1, count or 1)


def _run_on_ray(
    bundle: Path,
    settings: ServeSettings,
    rewards: dict[str, dict[str, Any]],
    given: dict[str, Any],
    listening: socket,
) -> None:
    from risen_export.bundles.opening import open_folder

    try:
        from risen_export.serving import ray_serve
    except ImportError as error:
        raise ConfigError(
            f"--ray needs {error.name}, which is not installed: pip install 'risen-plugin[ray]'"
        ) from error
    least, most = _replicas(given)
    # A bundle that cannot be opened is refused here, before a replica tries.
    _, content = open_folder(bundle, given["precision"], check_hashes=not given["no_check"])
    plan = ray_serve.Plan(
        bundle=bundle.resolve(),
        name=settings.name or bundle.resolve().name,
        precision=given["precision"],
        engine=_engine_settings(given),
        settings=settings,
        rewards=rewards,
        check_hashes=not given["no_check"],
        least=least,
        most=most,
        on_gpu=content["target"] == "cuda",
    )
    front = ray_serve.start(plan)
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    count = str(least) if least == most else f"{least} to {most}"
    say(
        f"serving {plan.name} on http://{shown}:{port}: {count} replicas on Ray Serve, "
        f"{plan.engine.rows} answers at once in each"
    )
    ray_serve.serve_front(front, listening, plan.name)


def _rewards(pairs: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Options of rewards, by the reward's name."""
    made: dict[str, dict[str, Any]] = {}
    for pair, value in parse_options(pairs).items():
        reward, dot, name = pair.partition(".")
        if not dot:
            raise ConfigError(f"the option '{pair}' has to name its reward: REWARD.NAME=VALUE")
        made.setdefault(reward, {})[name] = value
    return {reward: nested(found) for reward, found in made.items()}
