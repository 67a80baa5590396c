"""Benchmarks of models in processes of their own, undisturbed by the one that asks.

compare.py       one model against another: time, memory and size
profiler.py      how long batches of each size take, and what follows for batching
handle.py        a model in a child process, which runs blocks when told to
worker.py        that process
protocol.py      what both say to each other
inputs.py        the rows they run
timing.py        what many runs say of the time of one (pure)
ratio.py         how many times faster, and how sure that is (pure)
batch_advice.py  how large batches should be, and what line their times follow (pure)
conditions.py    what a figure depends on besides the model: processor, threads, versions
"""
