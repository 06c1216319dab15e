"""What the commands of bench/ share: servers to measure, meters, the load generator, tables, plots."""
