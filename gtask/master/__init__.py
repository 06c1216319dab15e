"""The supervisor: owns sockets, forks, reaps, replaces. Standard library only; never any user code."""
