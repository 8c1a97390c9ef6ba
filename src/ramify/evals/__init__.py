"""The evaluation lab: tasks with checkable answers, candidate pools and reports."""
