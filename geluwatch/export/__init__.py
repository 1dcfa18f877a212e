"""What leaves the agent: every reader here renders one frozen `Report` and knows nothing of the model behind it."""
