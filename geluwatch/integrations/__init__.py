"""Adapters to tools beside which geluwatch runs; each imports its library when it is called."""
