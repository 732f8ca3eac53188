"""Long trials of real processes: chaos, soak and fuzz; short forms of them are in tests/trials."""
