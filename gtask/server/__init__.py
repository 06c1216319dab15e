"""The inside of a worker process: load the user's code, accept, dispatch, answer, drain."""
