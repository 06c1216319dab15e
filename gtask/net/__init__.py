"""Streams on a gevent hub: connections, timers and the greenlets their callbacks run in."""
