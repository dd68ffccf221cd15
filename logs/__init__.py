"""All that a run writes: log lines, checkpoints; and what is made of log files: tables, pictures."""
