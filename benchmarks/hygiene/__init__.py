"""Benchmark of data hygiene on real text: corpus.py fetches it from Debian packages, bench_prepare.py measures."""
