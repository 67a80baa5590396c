"""Reports as one HTML page that needs nothing beside it, with charts as SVG.

Needs the extra `report`: pages are Jinja2 templates, charts are drawn by matplotlib. Import the modules themselves.
"""
