"""Readers for the sources that the quickstart assets are made from."""
