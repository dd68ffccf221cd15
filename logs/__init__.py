"""All that a run writes: log lines, checkpoints, the model to use; and what is made of logs."""
