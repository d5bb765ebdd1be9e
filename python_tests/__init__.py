"""Tests, laid out as the package is: python_tests/<part>/test_<module>.py judges <part>/<module>.py of the package."""
