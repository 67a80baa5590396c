"""Times models in processes of their own: what is measured there is not disturbed by what this one does.

subject.py     a model in a child process, which runs blocks when told to
child.py       that process
protocol.py    what both say to each other
rows.py        the rows they run
timing.py      what many runs say of the time of one (pure)
ratio.py       how many times faster, and how sure that is (pure)
knee.py        how large batches should be, and what line their times follow (pure)
conditions.py  what a figure depends on besides the model: processor, threads, versions
"""
