"""Training and evaluation of a config: where data, tasks, evaluators and conversion meet."""
