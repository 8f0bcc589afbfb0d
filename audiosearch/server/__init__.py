"""The web app: search, similar sounds, tags and players in the browser, on one library.

``create_app`` makes the Flask application, ``serve`` runs it on a production WSGI server, and
``fetch_page`` answers one request without any server. The pages are thin: each is one call on the
library and a template from ``web/templates``, and its ``.json`` twin prints what ``to_dict``
returns.
"""

from __future__ import annotations

from audiosearch.server.app import create_app, fetch_page
from audiosearch.server.listener import is_loopback, serve

__all__ = ["create_app", "fetch_page", "is_loopback", "serve"]
