"""Measurements, side by side with peers: `make bench`. Speed is asserted nowhere in the tests."""
