"""Ways to run attention: `rows.py` says what a pass yields, `blocked.py` is the exact reference."""
