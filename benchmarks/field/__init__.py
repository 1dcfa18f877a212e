"""The drift detector beside those that people would pick instead: the same values, the same false alarms, who is first."""
