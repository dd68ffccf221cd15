"""All that a run writes: log lines, checkpoints, the exported model; and what is made of log files: tables, pictures."""
