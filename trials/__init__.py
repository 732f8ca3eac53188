"""Trials of real processes: chaos, soak, fuzz, and what is promised; short forms of them are in tests/trials."""
