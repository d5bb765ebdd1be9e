"""What nvcc makes of each kernel: registers, shared memory and spills per architecture, committed beside the code."""
