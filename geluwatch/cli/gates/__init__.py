"""What `geluwatch compare` compares: baselines, models and their checkpoints, running processes."""
