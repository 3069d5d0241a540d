"""What a run needs before it is started: memory, FLOPs and traffic of its compiled step."""
