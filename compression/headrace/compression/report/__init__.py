"""The report of a search: one page for people, one document for programs.

page.py      the two files, and the order of the page
verdict.py   what came out of it, in a sentence
tables.py    attempts, disagreements, recipes that didn't apply, conditions
plots.py     what is drawn of a search
chart.py     scales, axes, points, lines and bars as SVG
picture.py   a row of the data as a small picture or a line of text
markup.py    HTML in which everything is escaped that isn't markup
"""

from headrace.compression.report.page import write_report

__all__ = ["write_report"]
