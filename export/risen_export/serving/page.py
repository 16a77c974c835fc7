"""The page at ``/``, on which a bundle is tried in a browser. One file, which loads no other."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("page.html")
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


@cache
def html() -> str:
    """The page."""
    return _FILE.read_text(encoding="utf-8")


def _policy() -> str:
    """A policy that allows the page's own script and style, and requests to its server alone."""
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in _INLINE.findall(html()):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes[kind].append(f"'sha256-{digest}'")
    return (
        f"default-src 'none'; script-src {' '.join(hashes['script'])}; "
        f"style-src {' '.join(hashes['style'])}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


@cache
def headers() -> dict[str, str]:
    """Headers that go with the page."""
    return {"content-security-policy": _policy(), "referrer-policy": "no-referrer"}
