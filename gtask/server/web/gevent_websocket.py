"""The three classes of gevent-websocket that those of this folder derive from.

No other file of gtask imports that package, which nobody maintains and which tells no types. Of
each class this is left:

- `WebSocketServer`, a gevent `StreamServer` by way of pywsgi's: the WSGI environment it begins with;
- `WebSocketHandler`: in which order a request is upgraded, refused or given to the application. pywsgi's
  parser and its writer, which it would bring along, are replaced: too lenient for what stands
  behind a proxy (docs/dependencies.md);
- `WebSocket`, what applications know: the names of its attributes and methods, not its codec.
"""

from __future__ import annotations

from geventwebsocket.handler import WebSocketHandler
from geventwebsocket.server import WebSocketServer
from geventwebsocket.websocket import WebSocket as BaseWebSocket

__all__ = ["BaseWebSocket", "WebSocketHandler", "WebSocketServer"]
