"""The web front end: websockets with callbacks, and plain HTTP, by way of gevent-websocket."""
