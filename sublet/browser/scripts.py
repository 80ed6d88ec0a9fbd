"""What is evaluated in a page."""

from __future__ import annotations

import json

FONTS = "document.fonts.ready.then(() => true)"

_UNTIL = """new Promise(found => {
  const look = () => document.querySelector(SELECTOR) && (found(true), true);
  if (!look()) new MutationObserver((_, all) => look() && all.disconnect())
    .observe(document, {subtree: true, childList: true, attributes: true});
})"""


def until(selector: str) -> str:
    """A promise that is kept when something in the page matches the CSS selector."""
    return _UNTIL.replace("SELECTOR", json.dumps(selector))
