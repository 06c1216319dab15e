"""What the tests share: real worker processes, plain peers, a proxy that cuts, a history."""
