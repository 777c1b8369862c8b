"""What computes: Celery's threads, each with a device and a child process that it supervises."""
