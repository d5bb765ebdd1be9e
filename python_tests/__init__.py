"""Tests, laid out as the package is: python_tests/<part>/test_<module>.py judges instructgpt_fast/<part>/<module>.py."""
