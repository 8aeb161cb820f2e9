"""Measurements and proofs of sizes, times and kills: minutes, by hand. See bench/README.md."""
