"""The numbers: histograms on the float lattice, channel moments, windows, scores, calibration.

Standard library, numpy and scipy only; no framework, no I/O, no clock, no logging. Time is an argument.
"""
