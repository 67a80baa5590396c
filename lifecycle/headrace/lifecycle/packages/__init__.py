"""Model packages: made of model files (`adding`) and of other packages (`registry`), and put in place whole.

`formats` reads what a file declares, `trial` finds out the rest by running it.
"""
