"""The endpoints of one model: which takes the next batch, how many at a time, and which are left alone for a while."""
