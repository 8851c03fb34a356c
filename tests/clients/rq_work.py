"""What the jobs of rq_jobs.py do."""


def add(a, b):
    return a + b


def fail():
    raise ValueError("meant to fail")
