"""What others published of a benchmark, and the same computed here."""
