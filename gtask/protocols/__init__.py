"""Pure code between bytes and messages: no socket, no clock, no log, no gevent."""
