"""CPU implementations of the operations: loops that Numba compiles on first use."""
