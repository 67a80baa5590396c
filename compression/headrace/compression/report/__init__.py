"""The report of a search: one page for people, one document for programs.

report.py       the two files
page.py         the page: a template, and what its filters write
page.html.j2    the template
charts.py       the charts of a search
rows.py         a row of the data as a small image or a line of text
figures.py      numbers in words, and the verdict in a sentence
"""

from headrace.compression.report.report import write_report

__all__ = ["write_report"]
