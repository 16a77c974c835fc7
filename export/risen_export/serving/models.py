"""The names that a server answers to: its bundle, and the adapters of the bundle and of its own.

A name is looked up in what is known, and never taken for a path. Adapters that are added to the
bundle or replaced in it while the server runs are found when they are next asked for.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from risen_export.bundles.adapters import check_name, listed, root_of, takes
from risen_export.bundles.manifest import MANIFEST
from risen_export.engine.worker import Worker
from risen_export.serving.refusals import RefusedError
from risen_plugin.errors import RisenError, near_miss, printable


class Models:
    """The base and its adapters.

    :param base: the name of the bundle itself.
    :param allowed: a folder under which adapters may be loaded from; None for the bundle's alone.
    """

    def __init__(self, worker: Worker, base: str, allowed: Path | None = None) -> None:
        self._worker = worker
        self._root = root_of(worker.engine.path)
        self.base = base
        self._allowed = allowed
        self._hashes: dict[str, str] = {}  # of the bundle's adapters, as they were loaded
        self._own: dict[str, str] = {}  # loaded by request, with where they came from
        self._gone: set[str] = set()  # of the bundle, unloaded by request
        self._seen: tuple[Any, dict[str, str]] = (None, {})
        self._lock = asyncio.Lock()
        self._since = int(time.time())

    @property
    def takes_adapters(self) -> bool:
        """Whether the bundle keeps adapters apart, so that some can be loaded."""
        return takes(self._root)

    @property
    def adapters(self) -> list[str]:
        """The names of all adapters that may be asked for now."""
        return [*self._own, *(name for name in self._of_bundle() if name not in self._own)]

    def data(self) -> dict[str, Any]:
        """The answer of ``/v1/models``."""
        entries = [self.entry(name) for name in (self.base, *self.adapters)]
        return {"object": "list", "data": entries}

    def entry(self, name: str) -> dict[str, Any]:
        """One model.

        :raises RefusedError: if there is none of that name.
        """
        self._check(name)
        is_base = name == self.base
        return {
            "id": name,
            "object": "model",
            "created": self._since,
            "owned_by": "risen",
            "root": self.base,
            "parent": None if is_base else self.base,
            "max_model_len": self._worker.engine.context,
        }

    async def adapter(self, name: str) -> str | None:
        """The engine's name of the adapter that a request asks for, loaded; None for the base.

        :raises RefusedError: if there is no model of that name, or it cannot be loaded.
        """
        self._check(name)
        if name == self.base:
            return None
        if name not in self._own:
            await self._up_to_date(name)
        return name

    async def load(self, name: str, path: str, *, replace: bool = False) -> None:
        """Load an adapter of the bundle, or of the allowed folder, under a name.

        :raises RefusedError: if it is not there, may not be loaded, or does not fit.
        """
        source = self._source(path)
        try:
            check_name(name)
        except RisenError as error:
            raise RefusedError(str(error), param="lora_name") from None
        if name == self.base:
            raise RefusedError(f"'{name}' is the name of the base", param="lora_name")
        if source != name and name in self._in_bundle():
            raise RefusedError(
                f"the bundle has an adapter '{name}'; choose another name", param="lora_name"
            )
        async with self._lock:
            if (name in self._own or name in self._hashes) and not replace:
                raise RefusedError(
                    f"adapter '{name}' is loaded already; set load_inplace to replace it",
                    param="lora_name",
                )
            await self._put(name, source)
            self._gone.discard(name)
            if source != name:
                self._own[name] = path

    async def unload(self, name: str) -> None:
        """Forget an adapter; answers that are being written with it are finished.

        :raises RefusedError: if there is none of that name.
        """
        async with self._lock:
            if name not in self.adapters or name in self._gone:
                raise self._unknown(name, "adapter", self.adapters)
            if name not in self._own:
                self._gone.add(name)
            self._own.pop(name, None)
            self._hashes.pop(name, None)
            engine = self._worker.engine

            def remove() -> None:
                if name in engine.adapters:
                    engine.remove_adapter(name)

            await asyncio.wrap_future(self._worker.call(remove))

    async def _up_to_date(self, name: str) -> None:
        """Load an adapter of the bundle, again if it was replaced there."""
        if self._hashes.get(name) == self._of_bundle()[name]:
            return
        async with self._lock:
            if self._hashes.get(name) != self._of_bundle().get(name):
                await self._put(name, name)

    async def _put(self, name: str, source: str | Path) -> None:
        engine = self._worker.engine
        known = self._in_bundle().get(name)
        try:
            await asyncio.to_thread(engine.open_adapters)  # seconds, in which others are answered
            load = self._worker.call(lambda: engine.load_adapter(name, source))
            await asyncio.wrap_future(load)
        except RisenError as error:
            raise RefusedError(str(error), param="lora_path") from None
        if source == name and known is not None:
            self._hashes[name] = known

    def _source(self, path: str) -> str | Path:
        if path in self._in_bundle():
            return path
        if self._allowed is None:
            raise RefusedError(
                f"the bundle has no adapter '{printable(path)[:80]}', and no folder is allowed to "
                "load others from (--adapters)",
                403,
                param="lora_path",
            )
        root = self._allowed.resolve()
        try:
            folder = (root / path).resolve()
        except (OSError, ValueError, RuntimeError):
            folder = Path("/")
        if not folder.is_relative_to(root) or folder == root:
            raise RefusedError(
                "lora_path lies outside of the folder that adapters may be loaded from",
                403,
                param="lora_path",
            )
        if not folder.is_dir():
            raise RefusedError(
                f"there is no adapter at '{printable(path)[:80]}'", 404, param="lora_path"
            )
        return folder

    def _of_bundle(self) -> dict[str, str]:
        """Those of the bundle that were not unloaded, with their hashes."""
        return {name: one for name, one in self._in_bundle().items() if name not in self._gone}

    def _in_bundle(self) -> dict[str, str]:
        """The hashes of the bundle's adapters by name, read again when its manifest changes."""
        if self._root is None:
            return {}
        try:
            status = (self._root / MANIFEST).stat()
            state = (status.st_mtime_ns, status.st_size, status.st_ino)
            if state != self._seen[0]:
                found = {name: entry["sha256"] for name, entry in listed(self._root).items()}
                self._seen = (state, found)
        except (OSError, RisenError):
            pass  # the bundle is being replaced; what was known holds until it is there again
        return self._seen[1]

    def _check(self, name: str) -> None:
        if name != self.base and name not in self.adapters:
            raise self._unknown(name, "model", [self.base, *self.adapters])

    def _unknown(self, name: str, what: str, known: list[str]) -> RefusedError:
        shown = printable(name)[:80]
        return RefusedError(
            f"there is no {what} '{shown}'{near_miss(shown, known) or ';'} "
            f"there is: {', '.join(known) or 'none'}",
            404,
            param="model" if what == "model" else "lora_name",
            code="model_not_found",
        )
