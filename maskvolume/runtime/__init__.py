"""How a program runs on a machine: errors, devices, processes, prefetching, transfers to a GPU, memory, progress."""
