"""What every test gets: one torch thread, and no place to write but its own."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two torch threads on a busy core cost up to ten times the CPU of one
