"""One test file an op; what every op must show is stated once, in suite.py."""
