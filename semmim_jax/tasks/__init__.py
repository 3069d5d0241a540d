"""What is trained: a class for each task, see training/task.py for what it gives."""
