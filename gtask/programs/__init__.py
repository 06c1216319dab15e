"""The commands: `gtask-worker`, `gtask-call`, `gtask-ping`."""
