"""All that a run writes: log lines, checkpoints, the exported model."""
