"""Is the model better at the task? Answers, graders, intervals."""
