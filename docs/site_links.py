"""A hook of mkdocs: links that leave ``docs/`` lead to files that the site does not have.

They become links into the repository where ``repo_url`` says where it is, else the file's path.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\.?/[^)\s]+)\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """The text of a page as the site shows it."""
    folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))

    def shown(link: re.Match[str]) -> str:
        path, _, anchor = link[2].partition("#")
        target = posixpath.normpath(posixpath.join(folder, path))
        if target.startswith("docs/"):
            return link[0]
        if config.repo_url:
            url = f"{config.repo_url.rstrip('/')}/blob/HEAD/{target}"
            return f"[{link[1]}]({url}{'#' + anchor if anchor else ''})"
        return f"{link[1]} (`{target}`)"

    return _LINK.sub(shown, markdown)
