"""The operations on the processor, in loops that Numba compiles at their first use."""
