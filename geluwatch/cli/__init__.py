"""The command line: builds the object graph, prints, and turns our errors into one sentence and an exit code."""
