"""mosec: an HTTP server in Rust, workers in Python, dynamic batches."""
