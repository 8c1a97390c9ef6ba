"""The web page and the viewer of traces, as `web/` builds them, and what fills them."""
