"""A newsletter goes out through gtask: tasks, a websocket front end, its page, and a mail sink."""
