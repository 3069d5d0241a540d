"""The training machinery that knows no task: step, state, checkpoints, meshes, metrics."""
