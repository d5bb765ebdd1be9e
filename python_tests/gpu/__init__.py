"""What needs a GPU; `make gpu` runs it."""
