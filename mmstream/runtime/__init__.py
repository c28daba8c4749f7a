"""What makes the graph run: the only place that makes tasks and threads."""
